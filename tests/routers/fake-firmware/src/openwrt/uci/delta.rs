//! Uncommitted changes, lines in the delta directory.

use std::fmt::Write;

use super::package::{Package, Value, quoted, words};
use super::{Failure, split};

/// One change of a package, a line in the delta directory.
#[derive(Clone, Debug)]
pub struct Delta<'a> {
    /// `+` makes a section without a name, `-` deletes, `|` adds to a list, `~` takes from it; nothing sets.
    pub verb: Option<char>,
    pub section: &'a str,
    pub option: Option<&'a str>,
    pub value: Option<String>,
}

impl<'a> Delta<'a> {
    pub fn of_command(
        verb: &str,
        section: &'a str,
        option: Option<&'a str>,
        value: Option<&str>,
    ) -> Option<Self> {
        let verb = match verb {
            "set" => None,
            "delete" => Some('-'),
            "add_list" => Some('|'),
            "del_list" => Some('~'),
            _ => return None,
        };
        Some(Self { verb, section, option, value: value.map(str::to_owned) })
    }

    pub fn parse(line: &'a str) -> Option<Self> {
        let verb = line.chars().next().filter(|first| "+-|~".contains(*first));
        let rest = line.trim_start_matches(['+', '-', '|', '~']);
        let (path, value) = rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value)));
        let (_, section, option) = split(path);
        let value = match value {
            Some(value) => Some(words(value)?.concat()),
            None => None,
        };
        Some(Self { verb, section: section?, option, value })
    }

    pub fn line(&self, package: &str, section: &str) -> String {
        let mut line = self.verb.map(String::from).unwrap_or_default();
        let _ = write!(line, "{package}.{section}");
        if let Some(option) = self.option {
            let _ = write!(line, ".{option}");
        }
        if let Some(value) = &self.value {
            let _ = write!(line, "={}", quoted(value));
        }
        line.push('\n');
        line
    }

    /// Changes the package, and returns the name of the section.
    pub fn apply(&self, package: &mut Package) -> Result<String, Failure> {
        let index = package.find(self.section);
        let value = self.value.clone().ok_or(Failure::Invalid);
        match (self.verb, self.option, index) {
            (Some('+'), None, None) => {
                package.add(&value?, None);
                package.sections.last_mut().ok_or(Failure::Invalid)?.name = self.section.to_owned();
            }
            (None, None, None) if !self.section.starts_with('@') => {
                package.add(&value?, Some(self.section.to_owned()));
            }
            (None, None, Some(index)) => package.sections[index].kind = value?,
            (None, Some(option), Some(index)) => package.sections[index].set(option, Value::One(value?)),
            (Some('|'), Some(option), Some(index)) => package.sections[index].push(option, value?),
            (Some('~'), Some(option), Some(index)) => {
                let section = &mut package.sections[index];
                if let Some((_, Value::List(items))) = section.options.iter_mut().find(|(n, _)| n == option) {
                    items.retain(|item| Some(item) != self.value.as_ref());
                }
            }
            (Some('-'), None, Some(index)) => return Ok(package.sections.remove(index).name),
            (Some('-'), Some(option), Some(index)) => {
                let options = &mut package.sections[index].options;
                let before = options.len();
                options.retain(|(name, _)| name != option);
                if options.len() == before {
                    return Err(Failure::NotFound);
                }
            }
            (_, _, None) => return Err(Failure::NotFound),
            _ => return Err(Failure::Invalid),
        }
        let index = index.unwrap_or(package.sections.len() - 1);
        Ok(package.sections[index].name.clone())
    }
}
