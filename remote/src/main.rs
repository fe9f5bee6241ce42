//! The program `rdrivefs-node`: the keeper's side.

fn main() -> std::process::ExitCode {
    rdrivefs_remote::node::cli::main()
}
