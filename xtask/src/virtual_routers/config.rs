//! Fragments of Kconfig configurations, such as `CONFIG_ASH=y`, for Linux and busybox.
//!
//! **Invariants:** every line of a fragment is in the configuration that is built; Kconfig silently drops a line whose
//! dependencies are not met.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

const SET: &str = "CONFIG_";
const NOT_SET: (&str, &str) = ("# CONFIG_", " is not set");

/// The settings of a fragment: its lines without comments and blanks.
pub fn settings(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().map(str::trim_end).filter(|line| line.starts_with(SET) || is_not_set(line))
}

fn is_not_set(line: &str) -> bool {
    line.starts_with(NOT_SET.0) && line.ends_with(NOT_SET.1)
}

/// The symbol of a setting, without `CONFIG_`.
pub fn symbol(setting: &str) -> &str {
    let name = setting.trim_start_matches(NOT_SET.0).trim_start_matches(SET);
    name.split(['=', ' ']).next().unwrap_or(name)
}

/// A fragment in which `settings` replace those of the same symbols.
pub fn replace(fragment: &str, replacing: &str) -> String {
    let replaced: BTreeSet<&str> = settings(replacing).map(symbol).collect();
    let kept = settings(fragment).filter(|setting| !replaced.contains(symbol(setting)));
    kept.chain(settings(replacing)).map(|setting| format!("{setting}\n")).collect()
}

/// Fails with the settings of the fragment that are not in the configuration. A symbol that is not set may also be absent.
pub fn check(fragment: &str, configuration: &str) -> Result<()> {
    let lines: BTreeSet<&str> = configuration.lines().collect();
    let symbols: BTreeSet<&str> = settings(configuration).map(symbol).collect();
    let survived = |setting: &&str| {
        lines.contains(setting) || (is_not_set(setting) && !symbols.contains(symbol(setting)))
    };
    let missing: Vec<&str> = settings(fragment).filter(|setting| !survived(setting)).collect();
    if !missing.is_empty() {
        bail!("these settings have unmet dependencies:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FRAGMENT: &str = "# The shell\nCONFIG_ASH=y\nCONFIG_LEN=512\n\n# CONFIG_FPU is not set\n";

    #[test]
    fn comments_are_no_settings() {
        let settings: Vec<&str> = settings(FRAGMENT).collect();
        assert_eq!(settings, ["CONFIG_ASH=y", "CONFIG_LEN=512", "# CONFIG_FPU is not set"]);
        let symbols: Vec<&str> = settings.iter().map(|setting| symbol(setting)).collect();
        assert_eq!(symbols, ["ASH", "LEN", "FPU"]);
    }

    #[test]
    fn settings_replace_those_of_their_symbol() {
        let replaced = replace(FRAGMENT, "# CONFIG_ASH is not set\nCONFIG_AIO=y\n");
        assert_eq!(
            replaced,
            "CONFIG_LEN=512\n# CONFIG_FPU is not set\n# CONFIG_ASH is not set\nCONFIG_AIO=y\n"
        );
    }

    #[test]
    fn complete_configurations_pass() {
        let explicit = "CONFIG_A=y\nCONFIG_ASH=y\nCONFIG_LEN=512\n# CONFIG_FPU is not set\n";
        let absent = "CONFIG_ASH=y\nCONFIG_LEN=512\nCONFIG_FPU_EMULATOR=y\n";
        check(FRAGMENT, explicit).unwrap();
        check(FRAGMENT, absent).unwrap();
    }

    #[test]
    fn dropped_and_changed_settings_are_named() {
        let configuration = "# CONFIG_ASH is not set\nCONFIG_LEN=5120\nCONFIG_FPU=y\n";
        let error = check(FRAGMENT, configuration).unwrap_err().to_string();
        for line in ["CONFIG_ASH=y", "CONFIG_LEN=512", "# CONFIG_FPU is not set"] {
            assert!(error.contains(line), "{error}");
        }
    }
}
