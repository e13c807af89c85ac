//! As much JSON as `ubus` speaks.

use std::fmt::Write;

/// How deep values may be nested; ubus messages of services have five levels.
const DEPTH: usize = 16;

/// A value. The members of an object keep their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value that fills the whole text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[(String, Self)] {
        if let Self::Object(members) = self { members } else { &[] }
    }

    /// The items of an array; none of anything else.
    pub fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// The text of a string or number.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A number, also one in a string: init scripts write all numbers as strings.
    pub fn number(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    /// True, or a number that is not 0.
    pub fn truth(&self) -> bool {
        *self == Self::Bool(true) || self.number().is_some_and(|number| number != 0)
    }

    /// In one line.
    pub fn compact(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// As `ubus call` prints it, indented with tabs.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => quote(out, text),
            Self::Array(items) => {
                list(out, indent, ['[', ']'], items, |out, item, indent| item.write(out, indent));
            }
            Self::Object(members) => list(out, indent, ['{', '}'], members, |out, (name, value), indent| {
                quote(out, name);
                out.push_str(if indent.is_some() { ": " } else { ":" });
                value.write(out, indent);
            }),
        }
    }
}

fn list<T>(
    out: &mut String,
    indent: Option<usize>,
    brackets: [char; 2],
    items: &[T],
    write: impl Fn(&mut String, &T, Option<usize>),
) {
    let line = |out: &mut String, indent: Option<usize>| {
        if let Some(depth) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n('\t', depth));
        }
    };
    let inner = indent.map(|depth| depth + 1);
    out.push(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        line(out, inner);
        write(out, item, inner);
    }
    line(out, indent);
    out.push(brackets[1]);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH {
            return None;
        }
        self.skip_space();
        match self.rest.chars().next()? {
            'n' => self.take("null").map(|()| Json::Null),
            't' => self.take("true").map(|()| Json::Bool(true)),
            'f' => self.take("false").map(|()| Json::Bool(false)),
            '"' => self.string().map(Json::String),
            '[' => self.sequence(['[', ']'], |reader| reader.value(depth + 1)).map(Json::Array),
            '{' => {
                let member = |reader: &mut Self| {
                    reader.skip_space();
                    let name = reader.string()?;
                    reader.take(":")?;
                    Some((name, reader.value(depth + 1)?))
                };
                self.sequence(['{', '}'], member).map(Json::Object)
            }
            _ => self.number(),
        }
    }

    fn sequence<T>(
        &mut self,
        brackets: [char; 2],
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.rest = self.rest.strip_prefix(brackets[0])?;
        let mut items = Vec::new();
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix(brackets[1]) {
            self.rest = rest;
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix(brackets[1]) {
                self.rest = rest;
                return Some(items);
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        number.parse::<f64>().ok()?;
        self.rest = rest;
        Some(Json::Number(number.to_owned()))
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[index + 1..];
                    return Some(text);
                }
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => {
                        let mut code = 0;
                        for _ in 0..4 {
                            code = code * 16 + chars.next()?.1.to_digit(16)?;
                        }
                        char::from_u32(code).unwrap_or('\u{fffd}')
                    }
                    c => c,
                }),
                c => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_an_init_script_comes_back_as_it_was() {
        let text = r#"{"name":"hopd","instances":{"instance1":{"command":["/usr/sbin/hopd","a \"b\"\\\n"],"respawn":["3600","5","0"],"stdout":true,"term_timeout":10}},"data":{},"triggers":[]}"#;
        assert_eq!(Json::parse(text).map(|json| json.compact()).as_deref(), Some(text));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{\"a\":}", "[1,]", "{} x", "\"a", "nul", &"[".repeat(100)] {
            assert_eq!(Json::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ubus_indents_with_tabs() {
        let json = Json::parse(r#"{"a":{"running":true,"pid":7}}"#).expect("JSON");
        assert_eq!(json.pretty(), "{\n\t\"a\": {\n\t\t\"running\": true,\n\t\t\"pid\": 7\n\t}\n}");
    }
}
