//! How long files and functions are, tests not counted.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{Sources, is_test};

/// Product lines of a file.
pub const FILE_LINES_MAX: usize = 500;

/// Lines of a function, from its signature to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Files and functions that are too long.
pub fn oversized(sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, text) in sources {
        if file.ends_with("tests.rs") {
            continue;
        }
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{file} parses: {e}"));
        let lines = product_lines(&parsed, text);
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{file} has {lines} lines, more than {FILE_LINES_MAX}"));
        }
        let mut functions = Functions { file, wrong: &mut wrong };
        functions.visit_file(&parsed);
    }
    wrong
}

fn product_lines(file: &syn::File, text: &str) -> usize {
    let tests: usize = file
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) if is_test(&module.attrs) => Some(lines(module)),
            _ => None,
        })
        .sum();
    text.lines().count() - tests
}

fn lines(spanned: &impl Spanned) -> usize {
    let span = spanned.span();
    span.end().line - span.start().line + 1
}

struct Functions<'a> {
    file: &'a str,
    wrong: &'a mut Vec<String>,
}

impl Functions<'_> {
    fn check(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let file = self.file;
            self.wrong.push(format!("{file}: {name} has {lines} lines, more than 70"));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}
