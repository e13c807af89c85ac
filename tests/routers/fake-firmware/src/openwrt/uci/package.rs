//! A file of /etc/config: sections of options.

use std::fmt::Write;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    One(String),
    List(Vec<String>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    pub kind: String,
    /// Generated, such as `cfg01`, if `anonymous`.
    pub name: String,
    pub anonymous: bool,
    pub options: Vec<(String, Value)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Package {
    pub sections: Vec<Section>,
}

impl Package {
    pub fn parse(text: &str) -> Option<Self> {
        let mut package = Self::default();
        for line in text.lines() {
            let words = words(line)?;
            let word = |index: usize| words.get(index).cloned();
            match words.first().map(String::as_str) {
                None | Some("package") => {}
                Some("config") => package.add(&word(1)?, word(2)),
                Some("option") => {
                    let section = package.sections.last_mut()?;
                    section.set(&word(1)?, Value::One(word(2)?));
                }
                Some("list") => package.sections.last_mut()?.push(&word(1)?, word(2)?),
                Some(_) => return None,
            }
        }
        Some(package)
    }

    pub fn add(&mut self, kind: &str, name: Option<String>) {
        let anonymous = name.is_none();
        let number = self.sections.len() + 1;
        let name = name.unwrap_or_else(|| format!("cfg{number:02x}{:04x}", kind_number(kind)));
        self.sections.push(Section { kind: kind.to_owned(), name, anonymous, options: Vec::new() });
    }

    /// By name, or as `@type[i]`, where a negative i counts from the end.
    pub fn find(&self, wanted: &str) -> Option<usize> {
        let Some((kind, index)) =
            wanted.strip_prefix('@').and_then(|rest| rest.strip_suffix(']')?.split_once('['))
        else {
            return self.sections.iter().position(|section| section.name == wanted);
        };
        let of_kind: Vec<_> =
            (0..self.sections.len()).filter(|i| kind.is_empty() || self.sections[*i].kind == kind).collect();
        let index: isize = index.parse().ok()?;
        let index = if index < 0 { of_kind.len().checked_add_signed(index)? } else { index as usize };
        of_kind.get(index).copied()
    }

    /// The text of a file; with `names`, also with those of anonymous sections.
    pub fn text(&self, names: bool) -> String {
        let mut out = String::new();
        for section in &self.sections {
            let _ = write!(out, "\nconfig {}", section.kind);
            if names || !section.anonymous {
                let _ = write!(out, " {}", quoted(&section.name));
            }
            out.push('\n');
            for (name, value) in &section.options {
                match value {
                    Value::One(value) => {
                        let _ = writeln!(out, "\toption {name} {}", quoted(value));
                    }
                    Value::List(items) => items.iter().for_each(|item| {
                        let _ = writeln!(out, "\tlist {name} {}", quoted(item));
                    }),
                }
            }
        }
        out.push('\n');
        out
    }

    /// The name of a section in `uci show`.
    pub fn shown_name(&self, index: usize) -> String {
        let section = &self.sections[index];
        if !section.anonymous {
            return section.name.clone();
        }
        let before = self.sections[..index].iter().filter(|other| other.kind == section.kind).count();
        format!("@{}[{before}]", section.kind)
    }

    pub fn show(&self, package: &str, index: usize) -> String {
        let (name, section) = (self.shown_name(index), &self.sections[index]);
        let mut out = format!("{package}.{name}={}\n", section.kind);
        for (option, value) in &section.options {
            let value = match value {
                Value::One(value) => quoted(value),
                Value::List(items) => items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(" "),
            };
            let _ = writeln!(out, "{package}.{name}.{option}={value}");
        }
        out
    }
}

impl Section {
    pub fn get(&self, option: &str) -> Option<&Value> {
        self.options.iter().find(|(name, _)| name == option).map(|(_, value)| value)
    }

    pub fn set(&mut self, option: &str, value: Value) {
        match self.options.iter_mut().find(|(name, _)| name == option) {
            Some((_, old)) => *old = value,
            None => self.options.push((option.to_owned(), value)),
        }
    }

    pub fn push(&mut self, option: &str, item: String) {
        let mut items = match self.get(option) {
            Some(Value::List(items)) => items.clone(),
            Some(Value::One(value)) => vec![value.clone()],
            None => Vec::new(),
        };
        items.push(item);
        self.set(option, Value::List(items));
    }
}

/// Something of four digits that depends on the type, as the original's hash.
fn kind_number(kind: &str) -> u16 {
    kind.bytes().fold(5381, |sum: u16, byte| sum.wrapping_mul(33).wrapping_add(u16::from(byte)))
}

pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// The words of a line, as a shell would split it; nothing if a quote is open at its end.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().push(characters.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const TEXT: &str = "# comment\nconfig hopd main\n\toption port '4670'\n\toption name \"it's\"\n\
                        config peer\n\tlist key a\n\tlist key 'b c'\nconfig peer\n";

    #[test]
    fn packages_are_parsed_and_written() {
        let package = Package::parse(TEXT).expect("a package");
        assert_eq!(package.find("main"), Some(0));
        assert_eq!(package.find("@peer[0]"), Some(1));
        assert_eq!(package.find("@peer[-1]"), Some(2));
        assert_eq!(package.find("@peer[2]"), None);
        assert_eq!(package.sections[0].get("name"), Some(&Value::One("it's".to_owned())));
        assert_eq!(Package::parse(&package.text(false)), Some(package));
    }

    #[test]
    fn show_has_ucis_format() {
        let package = Package::parse(TEXT).expect("a package");
        assert_eq!(
            package.show("hopd", 0),
            "hopd.main=hopd\nhopd.main.port='4670'\nhopd.main.name='it'\\''s'\n"
        );
        assert_eq!(package.show("hopd", 1), "hopd.@peer[0]=peer\nhopd.@peer[0].key='a' 'b c'\n");
    }

    #[test]
    fn malformed_packages_are_refused() {
        for text in ["option a b", "config a\noption x 'open", "word"] {
            assert_eq!(Package::parse(text), None, "{text}");
        }
    }
}
