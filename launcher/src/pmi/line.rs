//! One line of PMI-1: `cmd=put kvsname=k key=a value=anything to the end of the line`.

use super::LINE_BYTES_MAX;

/// A message of a rank, borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The value of `cmd`.
    pub(crate) command: &'a str,
    rest: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its newline.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Line<'a>, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "a line that is no text".to_owned())?;
        let text = text.trim_start();
        let after =
            text.strip_prefix("cmd=").ok_or_else(|| format!("a line without cmd=: {:?}", excerpt(text)))?;
        let (command, rest) = after.split_once(' ').unwrap_or((after, ""));
        Ok(Line { command: command.trim_end(), rest })
    }

    /// The value of `name`; the one of `value` runs to the end of the line, others to the next space.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.rest;
        loop {
            rest = rest.trim_start_matches(' ');
            let (key, after) = rest.split_once('=')?;
            if key == "value" {
                return (name == "value").then_some(after);
            }
            let (value, next) = after.split_once(' ').unwrap_or((after, ""));
            if key == name {
                return Some(value);
            }
            rest = next;
        }
    }

    /// Like [`Line::field`], but it must be there.
    pub(crate) fn need(&self, name: &str) -> Result<&'a str, String> {
        self.field(name).ok_or_else(|| format!("cmd={} without {name}=", self.command))
    }
}

/// The start of a text, for messages.
pub(crate) fn excerpt(text: &str) -> &str {
    let end = text.char_indices().nth(40).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

/// Cuts one rank's bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// Adds bytes and gives back the whole lines, without their newlines.
    ///
    /// # Errors
    /// A line is longer than any may be.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            line.pop();
            lines.push(line);
        }
        if self.buffer.len() > LINE_BYTES_MAX || lines.iter().any(|line| line.len() > LINE_BYTES_MAX) {
            return Err(format!("a line longer than {LINE_BYTES_MAX} bytes"));
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn value_runs_to_the_end_of_the_line() {
        let line = Line::parse(b"cmd=put kvsname=k key=a value=x key=y = z ").unwrap();
        assert_eq!(line.command, "put");
        assert_eq!(line.field("key"), Some("a"));
        assert_eq!(line.field("value"), Some("x key=y = z "));
        assert_eq!(line.field("absent"), None);
        assert_eq!(line.need("absent").unwrap_err(), "cmd=put without absent=");
    }

    #[test]
    fn lines_come_out_whole_however_they_were_cut() {
        let mut lines = Lines::default();
        assert!(lines.push(b"cmd=a").unwrap().is_empty());
        assert_eq!(lines.push(b"b\ncmd=c\nd").unwrap(), [b"cmd=ab".to_vec(), b"cmd=c".to_vec()]);
        assert!(lines.push(&[b'x'; LINE_BYTES_MAX]).is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_a_message_or_an_error(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for line in [text.as_bytes(), &bytes, format!("cmd={text}").as_bytes()] {
                if let Ok(line) = Line::parse(line) {
                    let _ = (line.field("key"), line.field("value"), line.need("kvsname"));
                }
            }
        }
    }
}
