//! The programs of a router's firmware that Debian does not have, in one file: init and procd, ubus, uci, nvram, sysupgrade and
//! others, selected by the name of the call. It runs only inside a virtual router.
//!
//! **Invariants:** it follows the documented behaviour of the originals; it may do less, but it is never more tolerant.

mod boot;
mod console;
mod dd_wrt;
mod disk;
mod firmware;
mod init;
mod interrupts;
mod json;
mod log;
mod modbus;
mod mounts;
mod nvram;
mod packages;
mod power;
mod profile;
mod respawn;
mod spawn;
mod supervisor;
mod system_calls;
mod ubus;
mod uci;
mod upgrade;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    match Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default() {
        "init" | "procd" => init::main(),
        "logread" => log::main(&arguments),
        "modbus_server" => modbus::main(&arguments),
        "nvram" => nvram::main(&arguments),
        "apk" | "opkg" => packages::main(&arguments),
        name @ ("reboot" | "poweroff" | "halt") => power::main(name, &arguments),
        "sysupgrade" => upgrade::main(&arguments),
        "ubus" => ubus::main(&arguments),
        "uci" => uci::main(&arguments),
        name => console::fail(&format!("{name}: this firmware has no such program")),
    }
}
