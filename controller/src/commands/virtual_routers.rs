//! `hop virtual`.

use serde::Serialize;

use crate::cli::Virtual;
use crate::error::Error;
use crate::home::Home;
use crate::inventory::{Inventory, Router};
use crate::outcome::ExitCode;
use crate::virtual_router::{self, Up};

/// Starts, ends or lists.
pub fn run(home: &Home, options: Virtual) -> Result<ExitCode, Error> {
    match options {
        Virtual::Up { arch } => {
            let (router, up) = virtual_router::up(home, arch)?;
            let done = if up == Up::Started { "started" } else { "runs already" };
            super::print(&format!("{} {done} at {}", router.name, router.entry.address))?;
        }
        Virtual::Down { name } => {
            for router in meant(home, name)? {
                virtual_router::down(home, &router.name)?;
                super::print(&format!("{} ended", router.name))?;
            }
        }
        Virtual::List { json } => super::print(&list(home, json)?)?,
    }
    Ok(ExitCode::Program(0))
}

fn all(home: &Home) -> Result<Vec<Router>, Error> {
    let mut routers = Inventory::new(home).list()?;
    routers.retain(|router| router.entry.process.is_some());
    Ok(routers)
}

fn meant(home: &Home, name: Option<String>) -> Result<Vec<Router>, Error> {
    let Some(name) = name else { return all(home) };
    let router = Inventory::new(home).get(&name)?;
    if router.entry.process.is_none() {
        return Err(Error::Usage(format!("{name} is no virtual router")));
    }
    Ok(vec![router])
}

#[derive(Serialize)]
struct Line {
    name: String,
    goarch: String,
    address: String,
    running: bool,
}

fn list(home: &Home, json: bool) -> Result<String, Error> {
    let lines: Vec<Line> = all(home)?
        .into_iter()
        .map(|router| Line {
            running: virtual_router::is_running(&router),
            name: router.name,
            goarch: router.entry.goarch,
            address: router.entry.address,
        })
        .collect();
    if json {
        // A list of strings and booleans always has its JSON.
        return Ok(serde_json::to_string_pretty(&lines).unwrap_or_default());
    }
    let mut text = format!("{:<16} {:<7} {:<22} STATE", "NAME", "ARCH", "ADDRESS");
    for Line { name, goarch, address, running } in &lines {
        let state = if *running { "running" } else { "ended" };
        text.push_str(&format!("\n{name:<16} {goarch:<7} {address:<22} {state}"));
    }
    Ok(text)
}
