//! A line plot as SVG: a logarithmic x axis, a linear y axis from zero, a bound, a legend.
//!
//! Names stand at the right, beside their lines' ends and pushed apart where they would meet, in
//! the colour of the line; markers differ too, for whoever does not tell the colours apart. The
//! text is dark on white, so that it is readable in whatever it is shown in.

use std::fmt::Write as _;

/// One line, with a value for each x.
pub(crate) struct Line {
    /// What the legend calls it.
    pub(crate) name: String,
    /// As many as there are x.
    pub(crate) values: Vec<f64>,
}

/// Everything that is drawn.
pub(crate) struct Plot {
    /// Above it.
    pub(crate) title: String,
    /// Below the x axis.
    pub(crate) x_title: String,
    /// Beside the y axis.
    pub(crate) y_title: String,
    /// Positions on the x axis and what is written there.
    pub(crate) x: Vec<(f64, String)>,
    /// What is drawn.
    pub(crate) lines: Vec<Line>,
    /// A dashed line that nothing should cross.
    pub(crate) bound: f64,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Between two names of the legend.
const NAME_HEIGHT: f64 = 17.0;

const COLOURS: [&str; 10] = [
    "#1f77b4", "#d95f02", "#2a8f3c", "#c2252b", "#7b4fb0", "#8c564b", "#d4459b", "#5f6368",
    "#9a8700", "#008b98",
];

impl Plot {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\" \
             fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut out, LEFT, 28.0, "font-size=\"16\" font-weight=\"bold\"", &self.title);
        self.axes(&mut out);
        self.draw_bound(&mut out);
        for (n, line) in self.lines.iter().enumerate() {
            self.draw_line(&mut out, n, line);
        }
        self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    /// The largest y, a multiple of the step between two marks.
    fn top(&self) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|line| &line.values).copied();
        let most = values.filter(|v| v.is_finite()).fold(self.bound, f64::max) * 1.05;
        let steps = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0];
        let step = steps.into_iter().find(|step| most / step <= 8.0).unwrap_or(most / 8.0);
        ((most / step).ceil() * step, step)
    }

    fn at_x(&self, x: f64) -> f64 {
        let (first, last) = (self.x[0].0.ln(), self.x[self.x.len() - 1].0.ln());
        let part = if last > first { (x.ln() - first) / (last - first) } else { 0.5 };
        // A little room on both sides, so that no marker lies on an axis.
        LEFT + (0.04 + 0.92 * part) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y / self.top().0 * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, out: &mut String) {
        let (top, step) = self.top();
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut mark = 0.0;
        while mark <= top + step / 2.0 {
            let y = self.at_y(mark);
            let colour = if mark == 0.0 { "#444" } else { "#e2e2e2" };
            line(out, (left, y), (right, y), &format!("stroke=\"{colour}\""));
            text(out, left - 8.0, y + 4.5, "text-anchor=\"end\"", &format!("{mark}"));
            mark += step;
        }
        line(out, (left, TOP), (left, bottom), "stroke=\"#444\"");
        for (x, name) in &self.x {
            let x = self.at_x(*x);
            line(out, (x, bottom), (x, bottom + 6.0), "stroke=\"#444\"");
            text(out, x, bottom + 22.0, "text-anchor=\"middle\"", name);
        }
        let middle = f64::midpoint(left, right);
        text(out, middle, HEIGHT - 14.0, "text-anchor=\"middle\"", &self.x_title);
        let y = f64::midpoint(TOP, bottom);
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 20 {y:.1})\"");
        text(out, 20.0, y, &turned, &self.y_title);
    }

    fn draw_bound(&self, out: &mut String) {
        let y = self.at_y(self.bound);
        let dashed = "stroke=\"#b00\" stroke-width=\"1.5\" stroke-dasharray=\"7 5\"";
        line(out, (LEFT, y), (WIDTH - RIGHT, y), dashed);
        let name = format!("bound {}", self.bound);
        text(out, LEFT + 6.0, y - 6.0, "fill=\"#b00\"", &name);
    }

    fn draw_line(&self, out: &mut String, n: usize, drawn: &Line) {
        let colour = COLOURS[n % COLOURS.len()];
        let points: Vec<(f64, f64)> = self
            .x
            .iter()
            .zip(&drawn.values)
            .filter(|(_, y)| y.is_finite())
            .map(|((x, _), y)| (self.at_x(*x), self.at_y(*y)))
            .collect();
        let path: String = points.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"");
        _ = writeln!(out, "<polyline points=\"{}\" {style}/>", path.trim_end());
        points.iter().for_each(|point| marker(out, n, *point, colour));
    }

    fn legend(&self, out: &mut String) {
        let end = |line: &Line| line.values.last().copied().filter(|y| y.is_finite());
        let mut names: Vec<(f64, usize)> = self
            .lines
            .iter()
            .enumerate()
            .map(|(n, line)| (self.at_y(end(line).unwrap_or(0.0)), n))
            .collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted: Vec<f64> = names.iter().map(|(y, _)| *y).collect();
        let lowest = HEIGHT - BOTTOM - 4.0;
        let x = WIDTH - RIGHT + 30.0;
        for (y, (was, n)) in apart(&wanted, TOP, lowest).into_iter().zip(names) {
            let colour = COLOURS[n % COLOURS.len()];
            let last = self.at_x(self.x[self.x.len() - 1].0);
            let thin = format!("stroke=\"{colour}\" stroke-width=\"0.7\"");
            line(out, (last + 6.0, was), (x - 12.0, y), &thin);
            marker(out, n, (x - 4.0, y), colour);
            let style = format!("fill=\"{colour}\"");
            let line = &self.lines[n];
            let value = end(line).map(|y| format!(" {y:.2}")).unwrap_or_default();
            text(out, x + 6.0, y + 4.5, &style, &format!("{}{value}", line.name));
        }
    }
}

/// Growing heights moved as little as need be so that names do not meet, within bounds.
fn apart(wanted: &[f64], highest: f64, lowest: f64) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::new();
    for y in wanted {
        let free = placed.last().map_or(highest, |last| last + NAME_HEIGHT);
        placed.push(y.max(free));
    }
    let mut room = lowest;
    for y in placed.iter_mut().rev() {
        *y = y.min(room);
        room = *y - NAME_HEIGHT;
    }
    placed
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>");
}

/// A circle, a square or a triangle.
fn marker(out: &mut String, n: usize, (x, y): (f64, f64), colour: &str) {
    _ = match n % 3 {
        0 => writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"),
        1 => {
            let (x, y) = (x - 3.5, y - 3.5);
            let size = "width=\"7\" height=\"7\"";
            writeln!(out, "<rect x=\"{x:.1}\" y=\"{y:.1}\" {size} fill=\"{colour}\"/>")
        }
        _ => {
            let points = [(x, y - 5.0), (x - 4.5, y + 3.5), (x + 4.5, y + 3.5)];
            let points = points.map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
            writeln!(out, "<polygon points=\"{points}\" fill=\"{colour}\"/>")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_meet_and_stay_in_the_picture() {
        let placed = apart(&[100.0; 12], 50.0, 420.0);
        assert!(placed.windows(2).all(|two| two[1] - two[0] >= NAME_HEIGHT - 1e-9), "{placed:?}");
        let placed = apart(&[400.0, 410.0, 419.0], 50.0, 420.0);
        assert!(placed.windows(2).all(|two| two[1] - two[0] >= NAME_HEIGHT - 1e-9), "{placed:?}");
        assert!(placed.iter().all(|y| (50.0..=420.0).contains(y)), "{placed:?}");
    }

    #[test]
    fn every_line_is_drawn_within_the_picture() {
        let sizes = [1e4, 1e5, 1e6];
        let line = |n: usize| Line { name: format!("row {n} < 2"), values: vec![1.0, 1.2, 9.9] };
        let plot = Plot {
            title: "a & b".to_owned(),
            x_title: "files".to_owned(),
            y_title: "multiple".to_owned(),
            x: sizes.map(|size| (size, size.to_string())).to_vec(),
            lines: (0..10).map(line).collect(),
            bound: 1.5,
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 10);
        assert!(svg.contains("a &amp; b") && svg.contains("row 3 &lt; 2") && !svg.contains("NaN"));
        assert!(plot.at_y(9.9) > TOP && plot.at_y(0.0) < HEIGHT);
        assert!(sizes.iter().all(|x| (LEFT..WIDTH - RIGHT).contains(&plot.at_x(*x))));
        let between = plot.at_x(1e5) - plot.at_x(1e4);
        assert!((plot.at_x(1e6) - plot.at_x(1e5) - between).abs() < 1e-6, "it is logarithmic");
    }
}
