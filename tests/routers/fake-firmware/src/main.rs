//! The programs of a router's firmware that Debian does not have, in one file: init and procd, ubus, uci, nvram, sysupgrade and
//! others, selected by the name of the call. It runs only inside a virtual router.
//!
//! **Invariants:** it follows the documented behaviour of the originals; it may do less, but it is never more tolerant.

mod console;
mod dd_wrt;
mod openwrt;
mod pid1;
mod procd;
mod profile;

use std::path::Path;
use std::process::ExitCode;

use dd_wrt::nvram;
use openwrt::{modbus, packages, uci, upgrade};
use pid1::power;
use procd::{log, ubus};

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    match Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default() {
        "init" | "procd" => pid1::main(),
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
