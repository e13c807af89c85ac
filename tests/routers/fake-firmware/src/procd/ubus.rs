//! `ubus`, and its protocol with PID 1: a request is a line `OBJECT METHOD JSON`, a response a line with a status and then the reply.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use crate::console::{fail, print};
use crate::procd::json::{self, Blob};

/// The socket of PID 1.
pub const SOCKET: &str = "/var/run/ubus/ubus.sock";
/// The longest message in bytes. procd's own have a few kB.
pub const MESSAGE: usize = 128 << 10;

/// Why a call failed, by ubus's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    InvalidArgument = 2,
    MethodNotFound = 3,
    NotFound = 4,
}

/// The objects of PID 1.
const OBJECTS: [&str; 3] = ["log", "service", "system"];

/// Sends a request to PID 1. The stream has the response.
pub fn request(object: &str, method: &str, message: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.write_all(format!("{object} {method} {}\n", message.replace('\n', " ")).as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream)
}

/// Sends a request to PID 1, and waits for the response: a status and a reply.
fn call(object: &str, method: &str, message: &str) -> io::Result<(u8, String)> {
    let mut answer = String::new();
    request(object, method, message)?.read_to_string(&mut answer)?;
    let (status, reply) = answer.split_once('\n').unwrap_or(("9", ""));
    Ok((status.parse().unwrap_or(9), reply.to_owned()))
}

/// `ubus [-S] [-t SECONDS] call OBJECT METHOD [JSON] | list [OBJECT] | wait_for OBJECT...`
pub fn main(arguments: &[String]) -> ExitCode {
    let mut words = arguments.iter().map(String::as_str).peekable();
    let mut compact = false;
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        compact |= option == "-S";
        if matches!(option, "-t" | "-s") {
            words.next();
        }
    }
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("list"), None, None, None) => {
            print(&OBJECTS.map(|object| format!("{object}\n")).concat());
            ExitCode::SUCCESS
        }
        (Some("list" | "wait_for"), Some(object), ..) => {
            if !OBJECTS.contains(&object) {
                return failed(Status::NotFound as u8);
            }
            print(&format!("{object}\n"));
            ExitCode::SUCCESS
        }
        (Some("call"), Some(object), Some(method), message) => {
            let message = message.unwrap_or("{}");
            if json::parse(message).is_none() {
                return failed(Status::InvalidArgument as u8);
            }
            match call(object, method, message) {
                Ok((0, reply)) => {
                    if let Some(json) = json::parse(&reply) {
                        print(&format!("{}\n", if compact { json.to_string() } else { json.pretty() }));
                    }
                    ExitCode::SUCCESS
                }
                Ok((status, _)) => failed(status),
                Err(_) => fail("Failed to connect to ubus"),
            }
        }
        _ => fail("Usage: ubus [-S] call OBJECT METHOD [JSON] | list [OBJECT]"),
    }
}

fn failed(status: u8) -> ExitCode {
    let reason = match status {
        2 => "Invalid argument",
        3 => "Method not found",
        4 => "Not found",
        _ => "Unknown error",
    };
    fail(&format!("Command failed: {reason}"));
    ExitCode::from(status)
}
