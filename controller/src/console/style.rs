//! The one set of colours: clap's, for its own texts and for the messages of `hop`.

use anstream::{AutoStream, ColorChoice};
use clap::builder::Styles;
use clap::builder::styling::Style;

const STYLES: Styles = Styles::styled();

/// What a message can begin with, and its style.
const LABELS: [(&str, &Style); 2] = [("error:", STYLES.get_error()), ("hint:", STYLES.get_valid())];

/// A message for standard error, its label coloured if standard error is a terminal that wants colours, by the rules of
/// anstream, which are clap's too: NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM.
pub fn message(text: &str) -> String {
    match AutoStream::choice(&std::io::stderr()) {
        ColorChoice::Never => text.to_owned(),
        _ => coloured(text),
    }
}

fn coloured(text: &str) -> String {
    for (label, style) in LABELS {
        if let Some(rest) = text.strip_prefix(label) {
            return format!("{style}{label}{style:#}{rest}");
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::coloured;

    #[test]
    fn labels_have_the_colours_of_clap() {
        assert_eq!(coloured("error: no hint: here"), "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m no hint: here");
        assert_eq!(coloured("hint: do"), "\u{1b}[32mhint:\u{1b}[0m do");
        assert_eq!(coloured("hop: built"), "hop: built");
    }
}
