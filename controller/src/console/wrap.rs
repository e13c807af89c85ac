//! Lines that fit into the terminal.

use rustix::termios::tcgetwinsize;
use textwrap::{Options, WordSplitter};

/// Narrower windows are not worth wrapping for: words would stand alone.
const MIN_WIDTH: usize = 30;

/// A line for standard output that is wrapped at spaces to the width of its terminal, with `indent` spaces before what follows.
/// Unchanged where standard output is no terminal, so that scripts find one line.
pub fn hanging(line: &str, indent: usize) -> String {
    let columns = tcgetwinsize(rustix::stdio::stdout()).map_or(0, |size| usize::from(size.ws_col));
    if columns < MIN_WIDTH { line.to_owned() } else { wrapped(line, indent, columns) }
}

fn wrapped(line: &str, indent: usize, columns: usize) -> String {
    let indent = " ".repeat(indent);
    // What is longer than a line, such as a fingerprint, stays whole, so that it can be copied.
    let options = Options::new(columns)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(line, options)
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_line_hangs_under_its_value() {
        let line = "memory       39.1 MiB available of 56.6 MiB, 8.0 MiB of them kept free";
        let narrow = "memory       39.1 MiB available of\n             56.6 MiB, 8.0 MiB of\n             them kept free";
        assert_eq!(wrapped(line, 13, 36), narrow);
        assert_eq!(wrapped(line, 13, 100), line);
        let whole = "fingerprint  SHA256:0123456789abcdef0123456789abcdef";
        assert!(wrapped(whole, 13, 40).ends_with("\n             SHA256:0123456789abcdef0123456789abcdef"));
    }
}
