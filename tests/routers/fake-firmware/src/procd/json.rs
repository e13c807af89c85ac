//! JSON values as `ubus` reads and prints them.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
pub use serde_json::{Value as Json, json};

/// How init scripts and procd interpret a value. Missing parts are empty, as in procd.
pub trait Blob {
    /// The text of a string or a number.
    fn text(&self) -> Option<Cow<'_, str>>;
    /// A number, also one in a string: init scripts write all numbers as strings.
    fn number(&self) -> Option<i64>;
    /// True, or a number that is not 0.
    fn truth(&self) -> bool;
    /// The items of an array; none of anything else.
    fn items(&self) -> &[Json];
    /// The members of an object, by their names; none of anything else.
    fn members(&self) -> impl Iterator<Item = (&String, &Json)>;
    /// The text that `ubus call` prints, indented with tabs.
    fn pretty(&self) -> String;
}

impl Blob for Json {
    fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::String(text) => Some(text.into()),
            Self::Number(number) => Some(number.to_string().into()),
            _ => None,
        }
    }

    fn number(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    fn truth(&self) -> bool {
        *self == Self::Bool(true) || self.number().is_some_and(|number| number != 0)
    }

    fn items(&self) -> &[Self] {
        self.as_array().map_or(&[], Vec::as_slice)
    }

    fn members(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.as_object().into_iter().flatten()
    }

    fn pretty(&self) -> String {
        let mut text = Vec::new();
        let formatter = PrettyFormatter::with_indent(b"\t");
        // Writing to memory does not fail, and the keys of a value are strings.
        let _ = self.serialize(&mut Serializer::with_formatter(&mut text, formatter));
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Reads one value that fills the whole text.
pub fn parse(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_script_messages_survive_a_round_trip() {
        let text = r#"{"data":{},"instances":{"instance1":{"command":["/usr/sbin/hopd","a \"b\"\\\n"],"respawn":["3600","5","0"],"stdout":true,"term_timeout":10}},"name":"hopd","triggers":[]}"#;
        assert_eq!(parse(text).map(|json| json.to_string()).as_deref(), Some(text));
    }

    #[test]
    fn numbers_may_be_strings() {
        let json = json!({"a": "7", "b": 7, "c": "x", "d": "0"});
        let numbers = ["a", "b", "c", "d"].map(|name| json[name].number());
        assert_eq!(numbers, [Some(7), Some(7), None, Some(0)]);
        let truths = ["a", "b", "c", "d"].map(|name| json[name].truth());
        assert_eq!(truths, [true, true, false, false]);
        assert_eq!(json["b"].text().as_deref(), Some("7"));
    }

    #[test]
    fn malformed_json_is_refused() {
        for text in ["", "{", "{\"a\":}", "[1,]", "{} x", "\"a", "nul", &"[".repeat(1000)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn ubus_indents_with_tabs() {
        let json = json!({"a": {"pid": 7, "running": true}});
        assert_eq!(json.pretty(), "{\n\t\"a\": {\n\t\t\"pid\": 7,\n\t\t\"running\": true\n\t}\n}");
    }
}
