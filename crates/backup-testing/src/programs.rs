//! Programs made up by a test.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a program to `path`, in place of one that may be running.
///
/// Another process writes it. If this one did, any child that another thread is just starting
/// would for a moment hold the file open for writing too, and a file that is open for writing
/// cannot be executed ("Text file busy").
///
/// # Errors
/// If the program could not be written.
pub fn write_program(path: &Path, text: &str) -> io::Result<()> {
    let script = r#"cat > "$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#;
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = shell.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    input.write_all(text.as_bytes())?;
    drop(input);
    if shell.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "could not write {}",
            path.display()
        )))
    }
}
