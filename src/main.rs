//! Parses, runs, picks the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(zferry::cli::run(std::env::args_os()))
}
