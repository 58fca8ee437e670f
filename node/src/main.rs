//! One binary: `ssi`, `ssid`, `ssi-init` and the user commands, by the name it is called with.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| name == pm::init::NAME) {
        pm::init::main();
    }
    let name = node::cli::called_as(&arguments);
    let cli = node::cli::Cli::read(node::cli::normalize(arguments));
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::from(1)
        }
    }
}
