//! The program: reads the command line, then serves, inspects or prints.

use std::process::ExitCode;

fn main() -> ExitCode {
    tiercache::app::main()
}
