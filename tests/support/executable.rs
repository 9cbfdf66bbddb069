//! Programs that a test makes itself.
//!
//! Another process writes them. What somebody has open for writing cannot be run ("text file
//! busy"), and between fork and exec each child has open whatever our process is just writing:
//! here many tests start processes all the time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a program of a script.
pub fn script(text: &str, program: &Path) {
    let mut install = install(Path::new("/dev/stdin"), program);
    let mut install = install.stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

/// Copies a program to where anybody may run it.
pub fn copy(from: &Path, program: &Path) {
    assert!(install(from, program).status().unwrap().success());
}

fn install(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("install");
    command.arg("--mode=755").args([from, to]);
    command
}
