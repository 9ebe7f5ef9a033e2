//! The Huffman code of strings (RFC 7541, appendix B).
//!
//! The code is canonical: symbols of one length have codes in a row, in the order of the symbols; so
//! the lengths say everything.

/// Bits of each symbol's code; the last is the end of a string, which never occurs.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
    6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23,
    23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22,
    22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26,
    27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
    25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The longest code, in bits.
const LONGEST: usize = 30;
const END: u16 = 256;

/// Codes by their length, and short ones by their first byte.
struct Code {
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// How many codes there are of each length.
    count: [u32; LONGEST + 1],
    /// Where the symbols of each length begin.
    begin: [usize; LONGEST + 1],
    /// Symbols by their codes.
    symbols: [u16; 257],
    /// The symbol that a byte begins with and its bits; none where that is longer.
    short: [(u8, u8); 256],
}

static CODE: Code = build();

#[expect(clippy::cast_possible_truncation, reason = "symbols have nine bits, lengths five")]
const fn build() -> Code {
    let mut code = Code {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        begin: [0; LONGEST + 1],
        symbols: [0; 257],
        short: [(0, 0); 256],
    };
    let (mut next, mut placed, mut length) = (0_u32, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.begin[length] = placed;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[placed] = symbol as u16;
                if length <= 8 {
                    let mut byte = (next as usize) << (8 - length);
                    while byte < (next as usize + 1) << (8 - length) {
                        code.short[byte] = (symbol as u8, length as u8);
                        byte += 1;
                    }
                }
                next += 1;
                placed += 1;
                code.count[length] += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// Decodes a whole string; `None` when it is no code, or does not end as one does: with fewer than eight
/// ones.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    // The shortest code has five bits.
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5 + 1);
    let mut bytes = bytes.iter();
    // The next bits, the first one on top, and how many there are.
    let (mut ahead, mut bits) = (0_u64, 0_usize);
    loop {
        while bits <= 56 {
            let Some(byte) = bytes.next() else { break };
            ahead |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        let (symbol, length) = match CODE.short[usize::from(ahead.to_be_bytes()[0])] {
            (_, 0) => long(ahead)?,
            (symbol, length) => (u16::from(symbol), usize::from(length)),
        };
        if length > bits {
            break;
        }
        if symbol == END {
            return None;
        }
        out.push(symbol.to_le_bytes()[0]);
        ahead <<= length;
        bits -= length;
    }
    let padded = bits < 8 && (bits == 0 || ahead >> (64 - bits) == (1 << bits) - 1);
    padded.then_some(out)
}

/// A symbol of more than eight bits.
fn long(ahead: u64) -> Option<(u16, usize)> {
    (9..=LONGEST).find_map(|length| {
        let bits = u32::try_from(ahead >> (64 - length)).ok()?;
        let place = bits.checked_sub(CODE.first[length]).filter(|place| *place < CODE.count[length])?;
        Some((CODE.symbols[CODE.begin[length] + place as usize], length))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// The other way round.
    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in bytes {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let symbols = &CODE.symbols[CODE.begin[length]..];
            let place = symbols.iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = CODE.first[length] + u32::try_from(place).unwrap();
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |byte: &[u8]| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap();
        bits.as_bytes().chunks(8).map(byte).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            assert_eq!(decode(&hex(bytes)).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), hex(bytes));
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn and_those_that_headers_have(text in "[ -~]{0,120}") {
            prop_assert_eq!(decode(&encode(text.as_bytes())), Some(text.into_bytes()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        assert_eq!(decode(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_code_is_an_error() {
        // Eight ones and more, a zero in the padding, the end of a string.
        for bad in ["ff", "07ff", "00", "ffffffff", "fffffffc", "1e"] {
            assert_eq!(decode(&hex(bad)), None, "{bad}");
        }
        assert_eq!(decode(&hex("07")).unwrap(), b"0");
    }
}
