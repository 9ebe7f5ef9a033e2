//! Server-sent events as the HTML standard has them, of a whole stream at once.

/// The data of each event that came to its end, in order; none of an event without data.
#[must_use]
pub fn parse(stream: &[u8]) -> Vec<Option<Vec<u8>>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut data, mut begun) = (Vec::new(), None::<Vec<u8>>, false);
    let mut rest = stream;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let (line, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]);
        if line.is_empty() {
            if std::mem::take(&mut begun) {
                events.push(data.take());
            }
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => continue,
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        begun = true;
        if name == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        }
    }
    events
}

/// The same stream with another line end in place of LF; none if it has CRs already.
#[must_use]
pub fn with_line_end(stream: &[u8], end: &[u8]) -> Option<Vec<u8>> {
    let mut lines = stream.split(|byte| *byte == b'\n');
    (!stream.contains(&b'\r')).then(|| {
        let mut out = lines.next().unwrap_or_default().to_vec();
        lines.for_each(|line| {
            out.extend_from_slice(end);
            out.extend_from_slice(line);
        });
        out
    })
}
