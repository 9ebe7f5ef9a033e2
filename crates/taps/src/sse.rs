//! Server-sent events, split anywhere: where their data stands in the stream.
//!
//! As the HTML standard has it: lines end in CR, LF or CRLF, one space behind the colon is not
//! part of the value, lines that begin with a colon are comments, a byte order mark may open the
//! stream, the `data` lines of an event make one text with line feeds between them.

/// Hears of events. Offsets count from the stream's first byte.
pub(crate) trait Listener {
    /// An event's first line begins; comments and empty lines do not begin one.
    fn begin(&mut self, _at: u64) {}
    /// A piece of the event's data.
    fn data(&mut self, bytes: &[u8], at: u64);
    /// Another line of data begins; the one before ended at `at`, before its line end.
    fn next_line(&mut self, at: u64);
    /// The event has ended with the line end before `at`.
    fn end(&mut self, at: u64);
    /// The line end before `at` was a CR, and an LF at `at` belongs to it.
    fn late_line_feed(&mut self, _at: u64) {}
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Before the first byte of the stream, or this far into a byte order mark.
    Mark(usize),
    /// Before a line.
    #[default]
    Start,
    /// This far into the name `data`.
    Name(usize),
    /// Behind the name's colon.
    Colon,
    Data,
    /// In a line of no interest.
    Other,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const NAME: &[u8] = b"data";

/// Splits a stream into events.
#[derive(Debug)]
pub(crate) struct Splitter {
    line: Line,
    /// The byte before was a CR.
    cr: bool,
    /// Inside an event; whether it has data.
    begun: bool,
    has_data: bool,
    /// Where the last line of data ended.
    data_end: u64,
    offset: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { line: Line::Mark(0), cr: false, begun: false, has_data: false, data_end: 0, offset: 0 }
    }
}

impl Splitter {
    /// How many bytes were fed.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether an event is under way.
    pub(crate) fn in_event(&self) -> bool {
        self.begun
    }

    /// Looks at the next bytes.
    pub(crate) fn feed<L: Listener>(&mut self, bytes: &[u8], listener: &mut L) {
        let base = self.offset;
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            let here = base + at as u64;
            if std::mem::take(&mut self.cr) && byte == b'\n' {
                listener.late_line_feed(here);
                at += 1;
                continue;
            }
            match (self.line, byte) {
                (Line::Mark(done), _) if byte == MARK[done] => {
                    self.line = if done + 1 == MARK.len() { Line::Start } else { Line::Mark(done + 1) };
                    at += 1;
                }
                // Half a mark is a line of nonsense.
                (Line::Mark(done), _) => self.line = if done == 0 { Line::Start } else { Line::Other },
                (_, b'\r' | b'\n') => {
                    self.cr = byte == b'\r';
                    at += 1;
                    self.line_ended(here + 1, listener);
                }
                (Line::Start, b':') => self.line = Line::Other,
                (Line::Start, _) => {
                    if !std::mem::replace(&mut self.begun, true) {
                        listener.begin(here);
                    }
                    self.line = Line::Name(0);
                }
                (Line::Name(done), _) if NAME.get(done) == Some(&byte) => {
                    self.line = Line::Name(done + 1);
                    at += 1;
                }
                (Line::Name(done), b':') if done == NAME.len() => {
                    self.line = Line::Colon;
                    self.data_line(listener);
                    at += 1;
                }
                (Line::Name(_), _) => self.line = Line::Other,
                (Line::Colon, _) => {
                    self.line = Line::Data;
                    at += usize::from(byte == b' ');
                }
                (Line::Data | Line::Other, _) => {
                    let rest = &bytes[at..];
                    let stop = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    if self.line == Line::Data {
                        listener.data(&rest[..stop], here);
                    }
                    at += stop;
                }
            }
        }
        self.offset += bytes.len() as u64;
    }

    fn data_line<L: Listener>(&mut self, listener: &mut L) {
        if std::mem::replace(&mut self.has_data, true) {
            listener.next_line(self.data_end);
        }
    }

    fn line_ended<L: Listener>(&mut self, at: u64, listener: &mut L) {
        match self.line {
            Line::Start if self.begun => {
                (self.begun, self.has_data) = (false, false);
                listener.end(at);
            }
            Line::Name(done) if done == NAME.len() => {
                self.data_line(listener);
                self.data_end = at - 1;
            }
            Line::Colon | Line::Data => self.data_end = at - 1,
            _ => {}
        }
        self.line = Line::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard {
        begun: Vec<u64>,
        ended: Vec<u64>,
        data: Vec<Vec<u8>>,
        under_way: Vec<u8>,
    }

    impl Listener for Heard {
        fn begin(&mut self, at: u64) {
            self.begun.push(at);
        }
        fn data(&mut self, bytes: &[u8], _: u64) {
            self.under_way.extend_from_slice(bytes);
        }
        fn next_line(&mut self, _: u64) {
            self.under_way.push(b'\n');
        }
        fn end(&mut self, at: u64) {
            self.ended.push(at);
            self.data.push(std::mem::take(&mut self.under_way));
        }
    }

    #[test]
    fn events_are_found_wherever_the_stream_is_split() {
        for (stream, data, begun, ended) in [
            ("data: a\n\ndata:b\n\n", vec!["a", "b"], vec![0, 9], vec![9, 17]),
            ("\u{feff}data:  a \n\n", vec![" a "], vec![3], vec![14]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["a", "b"], vec![0, 11], vec![10, 21]),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"], vec![0, 9], vec![9, 18]),
            ("data: a\ndata:b\ndata\ndata:\n\n", vec!["a\nb\n\n"], vec![0], vec![27]),
            (": ping\n\n:\n\nid: 1\nevent: x\n:c\ndata: a\nretry: 3\n\n", vec!["a"], vec![11], vec![47]),
            ("datax: a\ndat: b\n data: c\n\n", vec![""], vec![0], vec![26]),
            ("\n\n\ndata: a\n", vec![], vec![3], vec![]),
            ("data: 你好\n\n", vec!["你好"], vec![0], vec![14]),
        ] {
            for step in 1..=stream.len() {
                let (mut splitter, mut heard) = (Splitter::default(), Heard::default());
                stream.as_bytes().chunks(step).for_each(|piece| splitter.feed(piece, &mut heard));
                let texts: Vec<_> = heard.data.iter().map(|d| String::from_utf8_lossy(d)).collect();
                assert_eq!(texts, data, "{stream:?} in pieces of {step}");
                assert_eq!((heard.begun, heard.ended), (begun.clone(), ended.clone()), "{stream:?}, {step}");
            }
        }
    }
}
