//! Reads one line by the grammar of samples, as `kmproxy/exposition/grammar.py` defines it.
//!
//! Each byte is read once, but for one string in a line, which is read twice where it is no label
//! but the metric's name. There is no backtracking and no recursion. A line has no newline in it.

/// A part of a line, as positions of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The position behind the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes of this part of a line.
    pub fn of<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        &line[self.start as usize..self.end as usize]
    }

    fn new(start: usize, end: usize) -> Span {
        // A line is shorter than MAX_LINE.
        Span { start: start as u32, end: end as u32 }
    }
}

/// The length of the longest line that is read.
pub const MAX_LINE: usize = 1 << 28;

/// A pair in the braces of a sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    /// The name without quotes, not unescaped.
    pub name: Span,
    /// The value without quotes, not unescaped.
    pub value: Span,
    /// Where the pair begins: at its name, or at the quote before it.
    pub start: u32,
    /// A bit for `Names`.
    pub bit: u8,
    /// Whether the name has a backslash. Then it is no word.
    pub odd_name: bool,
    /// Whether the value has a backslash.
    pub escaped: bool,
}

/// A sample that was read. It is used again for each line.
#[derive(Debug, Default)]
pub struct Sample {
    /// The pairs in the braces, in order.
    pub pairs: Vec<Pair>,
    /// The metric's name without quotes, not unescaped.
    pub name: Span,
    /// Whether the metric's name stands in the braces, in quotes.
    pub quoted: bool,
    /// Whether the metric's name has a backslash.
    pub escaped: bool,
    /// The positions of the brace that begins the pairs, and of the one that ends them; or 0.
    pub braces: Span,
    /// Whether the text in the braces was known. Then `pairs` and `bits` are empty.
    pub known: bool,
    /// The timestamp and the blanks before it.
    pub stamp: Option<Span>,
    /// The bits of the names of all pairs.
    pub bits: u64,
    known_names: [Known; NAMES], // at the places of the last pairs
    last_name: Vec<u8>,          // of the last metric, if it is short
}

const NAMES: usize = 16;

/// One of 64 bits for a name. Two names may have the same one.
pub fn bit(name: &[u8]) -> u8 {
    let (first, last) = match name {
        [] => (0, 0),
        [one] => (*one, *one),
        [first, .., last] => (*first, *last),
    };
    let mixed = (name.len() as u32).wrapping_mul(29) ^ u32::from(first).wrapping_mul(7);
    ((mixed ^ u32::from(last).wrapping_mul(3)) & 63) as u8
}

const START: u8 = 1; // of a word
const WORD: u8 = 2;
const COLON: u8 = 4;

static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if byte.is_ascii_alphabetic() || byte == b'_' {
            kinds[at] = START | WORD;
        } else if byte.is_ascii_digit() {
            kinds[at] = WORD;
        } else if byte == b':' {
            kinds[at] = COLON;
        }
        at += 1;
    }
    kinds
}

fn is(byte: u8, kind: u8) -> bool {
    KINDS[byte as usize] & kind != 0
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte, or a newline at the end of the line.
    fn peek(&self) -> u8 {
        self.line.get(self.at).copied().unwrap_or(b'\n')
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), b' ' | b'\t') {
            self.at += 1;
        }
        self.at > start
    }

    /// Reads bytes of some kinds. The first of them was looked at already.
    fn word(&mut self, kinds: u8) -> Span {
        let start = self.at;
        while is(self.peek(), kinds) {
            self.at += 1;
        }
        Span::new(start, self.at)
    }

    /// Reads a string in quotes: the text between, and whether it has a backslash.
    fn string(&mut self) -> Option<(Span, bool)> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = quote_or_backslash(self.line, self.at)?;
            if self.line[self.at] == b'"' {
                self.at += 1;
                return Some((Span::new(start, self.at - 1), escaped));
            }
            escaped = true;
            self.at += 2; // behind the end of the line, nothing is found
        }
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while let Some(eight) = eight(self.line, self.at) {
            // All bytes are 0x30 to 0x3f, and still are with 6 added.
            let threes = |x: u64| x & 0xf0f0_f0f0_f0f0_f0f0 == 0x3030_3030_3030_3030;
            if !(threes(eight) && threes(eight.wrapping_add(0x0606_0606_0606_0606))) {
                break;
            }
            self.at += 8;
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at > start
    }

    fn letters(&mut self, lower: &[u8]) -> bool {
        let end = self.at + lower.len();
        let found = self.line.get(self.at..end).is_some_and(|b| b.eq_ignore_ascii_case(lower));
        self.at = if found { end } else { self.at };
        found
    }

    /// Reads a number, as strconv.ParseFloat does without hexadecimal and underscores.
    fn number(&mut self) -> bool {
        let signed = self.take(b'+') || self.take(b'-');
        if self.digits() {
            if self.take(b'.') {
                self.digits();
            }
        } else if self.take(b'.') {
            if !self.digits() {
                return false;
            }
        } else if self.letters(b"inf") {
            self.letters(b"inity");
            return true;
        } else {
            return !signed && self.letters(b"nan");
        }
        let end = self.at;
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            if !self.digits() {
                self.at = end;
            }
        }
        true
    }

    /// Reads a pair. Without one, the position is where it was.
    fn pair(&mut self) -> Option<Pair> {
        let start = self.at;
        let pair = self.pair_here(start);
        if pair.is_none() {
            self.at = start;
        }
        pair
    }

    fn pair_here(&mut self, start: usize) -> Option<Pair> {
        let first = self.peek();
        let (name, odd_name) = if is(first, START) {
            (self.word(WORD), false)
        } else if first == b'"' {
            self.string()?
        } else {
            return None;
        };
        if self.peek() != b'=' {
            self.blanks();
        }
        if !self.take(b'=') {
            return None;
        }
        if self.peek() != b'"' {
            self.blanks();
        }
        let (value, escaped) = self.string()?;
        let bit = bit(name.of(self.line));
        Some(Pair { name, value, start: start as u32, bit, odd_name, escaped })
    }

    /// Reads an exemplar behind its `#`.
    fn exemplar(&mut self) -> bool {
        self.blanks();
        if !self.take(b'{') {
            return false;
        }
        self.blanks();
        while self.pair().is_some() {
            self.blanks();
            if !self.take(b',') {
                break;
            }
            self.blanks();
        }
        if !self.take(b'}') {
            return false;
        }
        self.blanks();
        if !self.number() {
            return false;
        }
        let end = self.at;
        if !(self.blanks() && self.number()) {
            self.at = end;
        }
        true
    }
}

fn eight(line: &[u8], at: usize) -> Option<u64> {
    let bytes = line.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The position of the next quote or backslash.
#[inline(always)]
fn quote_or_backslash(line: &[u8], start: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // The lowest bit that is set in `zeros` is that of the first byte that is zero.
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x;
    let mut at = start;
    while at < start + 24
        && let Some(eight) = eight(line, at)
    {
        let found = (zeros(eight ^ (ONES * 0x22)) | zeros(eight ^ (ONES * 0x5c))) & TOPS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + memchr::memchr2(b'"', b'\\', line.get(at..)?)?)
}

/// A name that was read before.
#[derive(Clone, Copy, Debug)]
struct Known {
    text: u128, // the name with `="` behind it, in the lowest bytes
    mask: u128, // of these bytes
    length: usize,
    bit: u8,
}

impl Default for Known {
    fn default() -> Known {
        Known { text: 1, mask: 0, length: 0, bit: 0 } // equal to no text
    }
}

/// Reads a pair of plain spelling: a word, and a string without a backslash right behind it.
#[inline(always)]
fn plain_pair(line: &[u8], start: usize, known: &mut Known) -> Option<Pair> {
    let rest = line.get(start..)?;
    let front = rest.first_chunk::<16>().map_or(0, |front| u128::from_le_bytes(*front));
    if front & known.mask != known.text {
        if !is(*rest.first()?, START) {
            return None;
        }
        let length = rest.iter().position(|byte| !is(*byte, WORD))?;
        if rest.get(length..)?.first_chunk::<2>()? != b"=\"" {
            return None;
        }
        *known = Known { length, bit: bit(&rest[..length]), ..Known::default() };
        if front != 0 && length <= 14 {
            known.mask = u128::MAX >> (8 * (14 - length));
            known.text = front & known.mask;
        }
    }
    let Known { length: name, bit, .. } = *known;
    let value = start + name + 2;
    let end = quote_or_backslash(line, value)?;
    if line[end] != b'"' {
        return None;
    }
    Some(Pair {
        name: Span::new(start, start + name),
        value: Span::new(value, end),
        start: start as u32,
        bit,
        odd_name: false,
        escaped: false,
    })
}

impl Sample {
    /// Reads a whole line. Returns whether it is a sample.
    ///
    /// `known` is asked for the length of a text that was read before, from the brace that begins
    /// the pairs to the one that ends them, if the line goes on with that.
    pub fn read(&mut self, line: &[u8], known: impl FnOnce(&[u8]) -> Option<usize>) -> bool {
        self.pairs.clear();
        self.bits = 0;
        self.braces = Span::default();
        self.known = false;
        self.quoted = false;
        self.escaped = false;
        self.stamp = None;
        line.len() < MAX_LINE && self.read_line(&mut Cursor { line, at: 0 }, known).is_some()
    }

    fn read_line(
        &mut self,
        cursor: &mut Cursor<'_>,
        known: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<()> {
        if !is(cursor.peek(), START | COLON) {
            cursor.blanks();
        }
        if is(cursor.peek(), START | COLON) {
            self.name = self.metric(cursor);
            let blank = cursor.blanks();
            if cursor.peek() == b'{' {
                let start = cursor.at;
                if let Some(length) = known(&cursor.line[start..]) {
                    self.known = true;
                    cursor.at += length;
                    self.braces = Span::new(start, cursor.at - 1);
                    cursor.blanks();
                } else {
                    self.braces(cursor)?;
                }
            } else if !blank {
                return None;
            }
        } else if cursor.peek() == b'{' {
            self.quoted = true;
            self.braces(cursor)?;
        } else {
            return None;
        }
        if !cursor.number() {
            return None;
        }
        let end = cursor.at;
        if cursor.blanks() && cursor.number() {
            self.stamp = Some(Span::new(end, cursor.at));
        } else {
            cursor.at = end;
        }
        while cursor.at < cursor.line.len() {
            if !cursor.blanks() {
                return None;
            }
            if cursor.at < cursor.line.len() && !(cursor.take(b'#') && cursor.exemplar()) {
                return None;
            }
        }
        Some(())
    }

    /// Reads the name of a metric, which is often that of the line before.
    fn metric(&mut self, cursor: &mut Cursor<'_>) -> Span {
        let start = cursor.at;
        if cursor.line[start..].starts_with(&self.last_name) {
            cursor.at += self.last_name.len();
        }
        let rest = cursor.word(WORD | COLON);
        let name = Span::new(start, cursor.at);
        if rest.start < rest.end && cursor.at - start <= 128 {
            self.last_name.clear();
            self.last_name.extend_from_slice(name.of(cursor.line));
        }
        name
    }

    /// Reads the brace that begins the pairs, up to the one that ends them, and blanks.
    fn braces(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let start = cursor.at;
        cursor.at += 1;
        cursor.blanks();
        self.list(cursor);
        if self.quoted {
            (self.name, self.escaped) = cursor.string()?;
            cursor.blanks();
            if cursor.take(b',') {
                cursor.blanks();
                self.list(cursor);
            }
        }
        self.braces = Span::new(start, cursor.at);
        if !cursor.take(b'}') {
            return None;
        }
        cursor.blanks();
        Some(())
    }

    /// Reads pairs, each with a comma that may be absent.
    fn list(&mut self, cursor: &mut Cursor<'_>) {
        let mut bits = self.bits;
        loop {
            // Nearly all pairs are plain. Another one is read twice.
            let known = &mut self.known_names[self.pairs.len() % NAMES];
            let pair = if let Some(pair) = plain_pair(cursor.line, cursor.at, known) {
                cursor.at = pair.value.end as usize + 1;
                pair
            } else if let Some(pair) = cursor.pair() {
                pair
            } else {
                break;
            };
            bits |= 1 << pair.bit;
            self.pairs.push(pair);
            if cursor.peek() != b',' {
                cursor.blanks();
            }
            if cursor.take(b',') {
                cursor.blanks();
            }
        }
        self.bits = bits;
    }
}

/// The pairs in a text that was rendered for this: the spans of their names, and of their values,
/// each with quotes if there are some.
pub fn pairs(rendered: &[u8]) -> Vec<(Span, Span)> {
    let mut cursor = Cursor { line: rendered, at: 0 };
    let mut found = Vec::new();
    while cursor.at < rendered.len() {
        let Some(pair) = cursor.pair() else {
            cursor.at += 1;
            continue;
        };
        let name = Span { start: pair.start, end: pair.name.end + (pair.name.start - pair.start) };
        found.push((name, Span { start: pair.value.start - 1, end: pair.value.end + 1 }));
    }
    found
}

/// The family of a HELP, TYPE or UNIT line, not unescaped, and whether it has a backslash.
pub fn family(line: &[u8]) -> Option<(Span, bool)> {
    let mut cursor = Cursor { line, at: 0 };
    cursor.blanks();
    if !(cursor.take(b'#') && cursor.blanks()) {
        return None;
    }
    let kind = cursor.word(WORD).of(line);
    if !(matches!(kind, b"HELP" | b"TYPE" | b"UNIT") && cursor.blanks()) {
        return None;
    }
    let (name, escaped) = if is(cursor.peek(), START | COLON) {
        (cursor.word(WORD | COLON), false)
    } else {
        cursor.string()?
    };
    (cursor.at == line.len() || cursor.blanks()).then_some((name, escaped))
}

/// Whether a line that is no sample is blank or a comment.
pub fn is_silent(line: &[u8]) -> bool {
    let mut cursor = Cursor { line, at: 0 };
    cursor.blanks();
    cursor.at == line.len() || cursor.peek() == b'#'
}

/// Whether a line may be a sample, by rules so simple that they need no second reading. They let
/// every sample pass.
///
/// A sample begins with a name or a brace, and ends in a number behind a blank or a brace. Without
/// braces it is a name and one or two numbers. If it begins with a brace, one of its strings is the
/// name, so no equals sign is beside it. Every number is one for Rust's own parser.
pub fn may_be_sample(line: &[u8]) -> bool {
    // The last bytes of `1`, `1.`, `Inf`, `NaN`, `Infinity`, and blanks: the others are soon done.
    let [_, _, .., b'0'..=b'9' | b'.' | b'f' | b'F' | b'n' | b'N' | b'y' | b'Y' | b' ' | b'\t'] =
        line
    else {
        return false;
    };
    let words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let (Some(first), Some(last)) = (words.clone().next(), words.clone().next_back()) else {
        return false;
    };
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let number = |text: &[u8]| str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok());
    let value = last.rsplit(|byte| *byte == b'}').next().unwrap_or(last);
    if first[0].is_ascii_digit() || !(name(&first[0]) || first[0] == b'{') || !number(value) {
        return false;
    }
    if memchr::memchr(b'{', line).is_none() {
        let count = words.clone().count();
        return (2..4).contains(&count) && first.iter().all(name) && words.skip(1).all(number);
    }
    if first[0] != b'{' || memchr::memchr(b'\\', line).is_some() {
        return true;
    }
    let mut parts = line.split(|byte| *byte == b'"').map(<[u8]>::trim_ascii);
    let mut before = parts.next();
    while let (Some(_), Some(after)) = (parts.next(), parts.next()) {
        if !after.starts_with(b"=") && !before.is_some_and(|before| before.ends_with(b"=")) {
            return true;
        }
        before = Some(after);
    }
    false
}

/// Appends the value that is spelled as `text` between quotes.
pub fn unescape(text: &[u8], value: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &text[at..]) {
        value.extend_from_slice(&text[at..at + found]);
        at += found + 2;
        match text.get(at - 1) {
            Some(b'n') => value.push(b'\n'),
            Some(escaped @ (b'"' | b'\\')) => value.push(*escaped),
            Some(other) => value.extend_from_slice(&[b'\\', *other]),
            None => value.push(b'\\'),
        }
        at = at.min(text.len());
    }
    value.extend_from_slice(&text[at..]);
}
