//! Fragments of configurations, such as `CONFIG_ASH=y`, for Kconfig as Linux and busybox have it.
//! What must stay true: every line of a fragment is in the configuration that is built, because Kconfig drops a line
//! whose conditions are not met without a word.

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

/// Fails with the settings of the fragment that are not in the configuration. What is not set may also be absent.
pub fn check(fragment: &str, configuration: &str) -> Result<()> {
    let lines: BTreeSet<&str> = configuration.lines().collect();
    let symbols: BTreeSet<&str> = settings(configuration).map(symbol).collect();
    let survived = |setting: &&str| {
        lines.contains(setting) || (is_not_set(setting) && !symbols.contains(symbol(setting)))
    };
    let missing: Vec<&str> = settings(fragment).filter(|setting| !survived(setting)).collect();
    if !missing.is_empty() {
        bail!("these settings have conditions that are not met:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FRAGMENT: &str = "# The shell\nCONFIG_ASH=y\nCONFIG_LEN=512\n\n# CONFIG_FPU is not set\n";

    #[test]
    fn a_fragment_is_its_settings() {
        let settings: Vec<&str> = settings(FRAGMENT).collect();
        assert_eq!(settings, ["CONFIG_ASH=y", "CONFIG_LEN=512", "# CONFIG_FPU is not set"]);
        let symbols: Vec<&str> = settings.iter().map(|setting| symbol(setting)).collect();
        assert_eq!(symbols, ["ASH", "LEN", "FPU"]);
    }

    #[test]
    fn a_setting_replaces_that_of_its_symbol() {
        let replaced = replace(FRAGMENT, "# CONFIG_ASH is not set\nCONFIG_AIO=y\n");
        assert_eq!(
            replaced,
            "CONFIG_LEN=512\n# CONFIG_FPU is not set\n# CONFIG_ASH is not set\nCONFIG_AIO=y\n"
        );
    }

    #[test]
    fn all_that_survived_is_well() {
        let explicit = "CONFIG_A=y\nCONFIG_ASH=y\nCONFIG_LEN=512\n# CONFIG_FPU is not set\n";
        let absent = "CONFIG_ASH=y\nCONFIG_LEN=512\nCONFIG_FPU_EMULATOR=y\n";
        check(FRAGMENT, explicit).unwrap();
        check(FRAGMENT, absent).unwrap();
    }

    #[test]
    fn what_was_dropped_or_changed_is_named() {
        let configuration = "# CONFIG_ASH is not set\nCONFIG_LEN=5120\nCONFIG_FPU=y\n";
        let error = check(FRAGMENT, configuration).unwrap_err().to_string();
        for line in ["CONFIG_ASH=y", "CONFIG_LEN=512", "# CONFIG_FPU is not set"] {
            assert!(error.contains(line), "{error}");
        }
    }
}
