//! The program a person runs.

fn main() -> std::process::ExitCode {
    rdrivefs::cli::main()
}
