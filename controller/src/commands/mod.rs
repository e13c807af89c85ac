//! The commands. Each is a function from its options to an exit code or a failure.

mod build;
mod built;
mod completions;
mod error;
mod failure;
mod go_exec;
mod info;
pub mod jobs;
mod key;
mod man_pages;
mod report;
mod routers;
mod run;
mod status_file;
mod virtual_routers;
mod watch;

use serde::Serialize;

pub use self::error::Error;
use crate::cli;
use crate::cli::Command;
use crate::client::connection::Connection;
use crate::client::mux::{self, Mux, MuxArgs};
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};
use crate::console::exit_code::ExitCode;
use crate::console::printable;
use crate::console::printable::printable_lines;
use crate::console::say;
use crate::console::stdio;
use crate::program::embedded::Arch;
use crate::virtual_router::{self, Isolation};

/// Does what the command line asks for.
pub fn run(command: Command) -> ExitCode {
    // Before anything is open.
    if let Command::KeepConnection(options) = command {
        let cli::KeepConnection { router, persist, connect_timeout } = options;
        let args = MuxArgs { router, persist, connect_timeout: connect_timeout.into() };
        return mux::run(&args)
            .map_or_else(|error| report::report(&error.into(), None), |()| ExitCode::Program(0));
    }
    // Without the runtime, which would wait for what takes too long.
    if let Command::Complete(options) = command {
        return completions::complete(options);
    }
    // One thread is enough for one job, and leaves the other core to Go.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("error: cannot start: {error}");
            return ExitCode::HopFailed;
        }
    };
    // First of all: -C must not change what a relative HOP_HOME means.
    let home = match Home::from_environment() {
        Ok(home) => home,
        Err(error) => return report::report(&error.into(), None),
    };
    let result = runtime.block_on(async {
        let home = &home;
        match command {
            Command::Run(options) => run::run(home, options).await,
            Command::Exec(options) => run::exec(home, options).await,
            Command::GoExec(options) => go_exec::run(home, options),
            Command::Build(options) => build::build(home, options).await,
            Command::Ps(options) => jobs::ps(home, options).await,
            Command::Attach(options) => jobs::attach(home, options).await,
            Command::Logs(options) => jobs::logs(home, options).await,
            Command::Kill(options) => jobs::kill(home, options).await,
            Command::Info(options) => info::info(home, options).await,
            Command::Router(options) => routers::run(home, options).await,
            Command::Key(options) => key::run(home, options).await,
            Command::Completions(options) => completions::print_script(options.shell),
            Command::ManPages(options) => man_pages::write(&options.directory),
            Command::Version => {
                print(concat!("hop ", env!("CARGO_PKG_VERSION"))).map(|()| ExitCode::Program(0))
            }
            Command::KeepConnection(_) | Command::Complete(_) => unreachable!("they have their own runtimes"),
            Command::Virtual(options) => virtual_routers::run(home, options).await,
        }
    });
    // A thread that waits for standard input would be waited for.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| report::report(&error, Some(&home)))
}

/// The router that a command is for: the named one, that of `HOP_ROUTER`, the default, or the only one.
fn selected_router(home: &Home, named: Option<&str>) -> Result<Router, Error> {
    let inventory = Inventory::new(home);
    // Empty means unset: that is how a CI configuration unsets a variable.
    let from_environment = std::env::var("HOP_ROUTER").ok().filter(|name| !name.is_empty());
    Ok(match named.or(from_environment.as_deref()) {
        Some(name) => inventory.get(name)?,
        None => inventory.implied()?,
    })
}

/// The router that a command is for. If it is an agent under qemu-user that was stopped, hop starts it again.
async fn running_router(home: &Home, named: Option<&str>) -> Result<Router, Error> {
    let router = selected_router(home, named)?;
    let Some(agent) = router.entry.process.filter(|_| !virtual_router::is_running(&router)) else {
        return Ok(router);
    };
    // Without one only if the user asked for that.
    let isolation = if agent.sandbox == Some(false) { Isolation::None } else { Isolation::Sandbox };
    let arch = if router.entry.goarch == "mipsle" { Arch::Mipsle } else { Arch::Mips };
    // On another thread, so that Ctrl-C works meanwhile.
    let home = home.clone();
    let (router, _) = tokio::task::spawn_blocking(move || virtual_router::up(&home, arch, isolation))
        .await
        .map_err(|error| virtual_router::Error::VirtualRouter {
            name: virtual_router::name(arch),
            why: error.to_string(),
        })??;
    say!("hop: started {}, which was not running", router.name);
    Ok(router)
}

/// Connects to the router that is meant.
async fn connect(
    home: &Home,
    options: &cli::RouterOptions,
) -> Result<(Connection, hop_proto::v1::GetInfoResponse), Error> {
    let router = running_router(home, options.router.as_deref()).await?;
    let mux = Mux::new(home, options.keep_connection)?;
    Ok(mux.open(&router, &home.identity()?, options.timeout()).await?)
}

/// Changes to the directory that `-C` names. Files on the command line are relative to it, as with `go -C`.
fn change_directory(options: &cli::GoOptions) -> Result<(), Error> {
    match &options.directory {
        Some(directory) => std::env::set_current_dir(directory).map_err(Error::io("change to", directory)),
        None => Ok(()),
    }
}

/// The error for `--tty` when standard input is no terminal.
fn no_terminal() -> Error {
    Error::Usage("--tty needs a terminal, and standard input is none".to_owned())
}

/// Prints a result as text.
fn print(text: &str) -> Result<(), Error> {
    print_as_it_is(&printable_lines(text))
}

/// Prints a result as JSON.
fn print_json(value: &impl Serialize) -> Result<(), Error> {
    print_as_it_is(&printable::json(value))
}

/// Prints the text unchanged. A reader that has closed the pipe (`hop info | head -1`) is no error.
fn print_as_it_is(text: &str) -> Result<(), Error> {
    use std::io::{ErrorKind, Write};
    match stdio::stdout().write_all(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("write", std::path::Path::new("standard output"))(error))
        }
        _ => Ok(()),
    }
}
