//! Many sources, one output: lines never mix.
//!
//! Invariant: between two newlines of the output there are bytes of one source only, unless a line is longer than
//! [`LINE_BYTES_MAX`]; each source's own bytes stay in order and complete.

use std::collections::BTreeMap;

/// A line that grows longer than this is passed on in parts.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Collects the output of many sources (the ranks of a job, the nodes of `onall`) line by line. Pure.
#[derive(Debug, Default)]
pub struct LineMux {
    sources: BTreeMap<u32, Source>,
    /// Whose unfinished line stands at the end of the output.
    open: Option<u32>,
}

#[derive(Debug, Default)]
struct Source {
    prefix: Vec<u8>,
    held: Vec<u8>,
}

impl LineMux {
    /// Each line of `source` shall start with `prefix`. Without this call: with nothing.
    pub fn prefix(&mut self, source: u32, prefix: &[u8]) {
        self.sources.entry(source).or_default().prefix = prefix.to_vec();
    }

    /// Bytes of `source`; gives back what may be written now.
    pub fn push(&mut self, source: u32, data: &[u8]) -> Vec<u8> {
        let entry = self.sources.entry(source).or_default();
        entry.held.extend_from_slice(data);
        let whole = match entry.held.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if entry.held.len() >= LINE_BYTES_MAX => entry.held.len(),
            None => return Vec::new(),
        };
        let lines: Vec<u8> = entry.held.drain(..whole).collect();
        self.pass(source, &lines)
    }

    /// `source` ends, or must be seen now: gives back its unfinished line.
    pub fn finish(&mut self, source: u32) -> Vec<u8> {
        let held =
            self.sources.get_mut(&source).map(|entry| std::mem::take(&mut entry.held)).unwrap_or_default();
        if held.is_empty() { Vec::new() } else { self.pass(source, &held) }
    }

    fn pass(&mut self, source: u32, lines: &[u8]) -> Vec<u8> {
        let prefix = self.sources.get(&source).map_or(&[][..], |entry| &entry.prefix);
        let mut output = Vec::with_capacity(lines.len() + prefix.len());
        let mut at_start = self.open != Some(source);
        if at_start && self.open.is_some() {
            output.push(b'\n');
        }
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            if at_start {
                output.extend_from_slice(prefix);
            }
            output.extend_from_slice(line);
            at_start = line.ends_with(b"\n");
        }
        self.open = (!at_start).then_some(source);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_two_sources_do_not_mix() {
        let mut mux = LineMux::default();
        assert_eq!(mux.push(0, b"hel"), b"");
        assert_eq!(mux.push(1, b"one\ntw"), b"one\n");
        assert_eq!(mux.push(0, b"lo\n"), b"hello\n");
        assert_eq!(mux.finish(1), b"tw");
        assert_eq!(mux.push(0, b"next\n"), b"\nnext\n");
        assert_eq!(mux.finish(1), b"");
    }

    #[test]
    fn one_source_passes_unchanged() {
        let mut mux = LineMux::default();
        let mut output = mux.push(0, b"a\nb");
        output.extend(mux.finish(0));
        assert_eq!(output, b"a\nb");
    }

    #[test]
    fn every_line_has_its_prefix_once() {
        let mut mux = LineMux::default();
        mux.prefix(3, b"node3: ");
        assert_eq!(mux.push(3, b"a\n\nb"), b"node3: a\nnode3: \n");
        assert_eq!(mux.push(3, b"c\n"), b"node3: bc\n");
        assert_eq!(mux.push(3, &vec![b'x'; LINE_BYTES_MAX]).len(), LINE_BYTES_MAX + 7);
        assert_eq!(mux.push(3, b"y\n"), b"y\n");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_line_has_two_owners(pieces in prop::collection::vec((0u32..4, prop::collection::vec(prop::sample::select(vec![0u8, 1, 10]), 0..12)), 0..40)) {
            let mut mux = LineMux::default();
            let mut sent = vec![Vec::new(); 4];
            let mut output = Vec::new();
            // Each source writes its own letter, so that the owner of every byte can be seen.
            for (source, shape) in &pieces {
                let data: Vec<u8> = shape.iter().map(|&b| if b == 10 { b'\n' } else { b'a' + *source as u8 }).collect();
                sent[*source as usize].extend(&data);
                output.extend(mux.push(*source, &data));
            }
            for source in 0..4 {
                output.extend(mux.finish(source));
            }
            for line in output.split(|&byte| byte == b'\n') {
                prop_assert!(line.windows(2).all(|pair| pair[0] == pair[1]));
            }
            for (source, sent) in sent.iter().enumerate() {
                let letter = b'a' + source as u8;
                let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == letter).count();
                prop_assert_eq!(count(&output), count(sent));
            }
        }
    }
}
