//! `hop build`.

use super::Error;
use crate::cli;
use crate::config;
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::progress::Progress;
use crate::golang::build::Build;

/// Builds a package for a router, without asking the router.
pub async fn build(home: &Home, options: cli::Build) -> Result<ExitCode, Error> {
    super::change_directory(&options.go)?;
    let goarch = match options.arch {
        Some(arch) => arch.goarch().to_owned(),
        None => goarch_of_router(home, options.router.as_deref())?,
    };
    let build = Build {
        flags: &options.go.flags,
        packages: &options.packages,
        goarch: &goarch,
        symbols: false,
        vcs_stamp: true,
        cc: options.go.cc.as_deref(),
    };
    let progress = Progress::default();
    let built = build.run(options.output.as_deref(), &progress).await;
    progress.clear();
    built?;
    Ok(ExitCode::Program(0))
}

fn goarch_of_router(home: &Home, named: Option<&str>) -> Result<String, Error> {
    match super::selected_router(home, named) {
        Ok(router) => Ok(router.entry.goarch),
        Err(Error::Config(config::Error::NoRouter)) => Ok("mips".to_owned()),
        Err(error) => Err(error),
    }
}
