//! The memory of one exposition: labels, verdicts and series, each bounded in bytes.
//!
//! The maps' hashes have random keys, so no input can choose names that collide.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::grammar::{self, Span};

/// Bytes that the labels of namespaces and pods take, at most. Above it all are forgotten, and
/// asked for again.
pub const MAX_LABELS: usize = 2 << 20;

/// Bytes that the texts in braces take, at most.
pub const MAX_TEXTS: usize = 1 << 20;

/// Bytes that the verdicts about names take, at most.
pub const MAX_VERDICTS: usize = 2 << 20;

const ENTRY: usize = 250; // bytes for an entry besides its bytes, approximately

type Map<V> = HashMap<Box<[u8]>, V, Hash<1>>;

/// Labels to add to a sample.
#[derive(Debug, Default)]
pub struct Added {
    /// The bytes to add, such as `,team="a"`.
    pub bytes: Vec<u8>,
    /// The names in them, and the values with their quotes.
    pub pairs: Vec<(Span, Span)>,
    /// The bits of the names.
    pub bits: u64,
    index: Option<Map<usize>>, // of many pairs
}

const MANY: usize = 8; // pairs, to be found by an index

impl Added {
    /// Labels as Python renders them: `,team="a"` for each. Their names get a prefix.
    pub fn new(rendered: &[u8], prefix: &[u8]) -> Added {
        let mut bytes = rendered.to_vec();
        if !prefix.is_empty() {
            let pairs = grammar::pairs(rendered).into_iter();
            let parts = pairs.map(|(name, value)| {
                [b",", prefix, name.of(rendered), b"=", value.of(rendered)].concat()
            });
            bytes = parts.collect::<Vec<_>>().concat();
        }
        let pairs = grammar::pairs(&bytes);
        let names = pairs.iter().map(|(name, _)| name.of(&bytes));
        let bits = names.clone().fold(0, |bits, name| bits | 1 << grammar::bit(name));
        let index = (pairs.len() > MANY)
            .then(|| names.enumerate().map(|(at, name)| (name.into(), at)).collect());
        Added { bits, index, pairs, bytes }
    }

    /// The place of a name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(name).copied(),
            None => self.pairs.iter().position(|pair| pair.0.of(&self.bytes) == name),
        }
    }

    fn size(&self) -> usize {
        2 * self.bytes.len() + ENTRY * (1 + self.pairs.len())
    }
}

/// The labels that were asked for.
#[derive(Debug, Default)]
pub struct Labels {
    known: Vec<Map<Option<usize>>>,
    recent: Vec<Recent>, // one for each slot
    added: Vec<Added>,
    last: Vec<(Vec<u8>, Option<usize>)>, // for each kind, the labels that came last
    prefixes: Vec<Vec<u8>>,              // for each kind
    size: usize,
}

#[derive(Clone, Debug, Default)]
struct Recent {
    kind: usize,
    key: Vec<u8>, // empty if there is none
    number: Option<usize>,
}

const SLOTS: usize = 256;

/// The slot of a key. Keys often differ in their last bytes.
#[inline(always)]
fn slot(kind: usize, key: &[u8]) -> usize {
    let last = key.last_chunk::<4>().map_or(0, |last| u32::from_le_bytes(*last));
    let mixed = last
        .wrapping_mul(0x9e37_79b1)
        .wrapping_add(((key.len() * 37 + kind) as u32).wrapping_mul(0x0101));
    (mixed >> 16) as usize % SLOTS
}

impl Labels {
    /// A memory for some kinds of keys, each with a prefix for the names of its labels.
    pub fn new(prefixes: Vec<Vec<u8>>) -> Labels {
        Labels {
            known: prefixes.iter().map(|_| Map::default()).collect(),
            last: vec![Default::default(); prefixes.len()],
            prefixes,
            recent: vec![Recent::default(); SLOTS],
            ..Labels::default()
        }
    }

    /// The labels of a key that is not empty, as a number; None if they are not remembered,
    /// Some(None) if there are none and the sample is left out.
    #[inline(always)]
    pub fn get(&mut self, kind: usize, key: &[u8]) -> Option<Option<usize>> {
        let recent = &mut self.recent[slot(kind, key)];
        if recent.kind == kind && same(&recent.key, key) {
            return Some(recent.number);
        }
        let number = self.known[kind].get(key).copied()?;
        if key.len() <= 128 {
            recent.kind = kind;
            recent.key.clear();
            recent.key.extend_from_slice(key);
            recent.number = number;
        }
        Some(number)
    }

    /// Holds labels as Python renders them until the next `trim`, or None if the sample is left
    /// out; with a key they are remembered.
    pub fn hold(
        &mut self,
        kind: usize,
        key: Option<&[u8]>,
        rendered: Option<&[u8]>,
    ) -> Option<usize> {
        let number = rendered.map(|rendered| self.number(kind, rendered));
        if let Some(key) = key {
            self.size += ENTRY + key.len();
            self.known[kind].insert(key.into(), number);
        }
        number
    }

    /// The number of labels. Many names in a row may have the same ones: the unknown names have.
    fn number(&mut self, kind: usize, rendered: &[u8]) -> usize {
        let (last, number) = &mut self.last[kind];
        if let Some(number) = number.filter(|_| same(last, rendered)) {
            return number;
        }
        let added = Added::new(rendered, &self.prefixes[kind]);
        self.size += added.size();
        last.clear();
        last.extend_from_slice(rendered);
        *number.insert(push(&mut self.added, added))
    }

    /// The labels with a number.
    pub fn added(&self, number: usize) -> &Added {
        &self.added[number]
    }

    /// Forgets all labels if they take too many bytes. Their numbers hold until then.
    #[inline(always)]
    pub fn trim(&mut self) {
        if self.size > MAX_LABELS {
            self.known.iter_mut().for_each(Map::clear);
            self.recent.iter_mut().for_each(|recent| recent.key.clear());
            self.added.clear();
            self.last.iter_mut().for_each(|last| last.1 = None);
            self.size = 0;
        }
    }
}

/// Appends an element. Returns its place.
fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    all.push(one);
    all.len() - 1
}

/// Whether two texts are equal, without a call for short ones: for empty ones it is slow.
#[inline(always)]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(first), Some(other), Some(last), Some(ends)) if a.len() <= 16 => {
            u64::from_ne_bytes(*first) == u64::from_ne_bytes(*other)
                && u64::from_ne_bytes(*last) == u64::from_ne_bytes(*ends)
        }
        (Some(_), ..) => a == b,
        _ => a.iter().zip(b).all(|(x, y)| x == y),
    }
}

/// The outcome for the text in the braces of samples that pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Labels to be added that the text bears.
    pub conflicts: u64,
    /// Whether labels are added or replaced.
    pub enriched: bool,
    /// The digest of the labels that are kept.
    pub kept: [u64; 2],
    /// The digest of the labels that are taken off.
    pub dropped: [u64; 2],
}

/// An edit: a span is replaced by a part of another text.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// The beginning of the span.
    pub start: usize,
    /// The end of the span.
    pub end: usize,
    /// The part of the other text.
    pub text: (usize, usize),
}

/// The texts in braces that were read before, with their outcomes.
///
/// The samples of a container bear the same text in family after family. A text is held when it
/// comes for the second time, as far as a hash tells. Where texts do not repeat, few are held.
#[derive(Debug)]
pub struct Texts {
    seen: Vec<u32>,          // the hashes of texts that came
    ways: Vec<(u32, usize)>, // two for each hash: it, and the number of a text
    held: Vec<Held>,         // of each text
    bytes: Vec<u8>,          // of all texts, each behind its new text
    edits: Vec<Edit>,        // of all texts
    credit: u32,             // how many more texts may be held, before one of them comes again
    asked: u32,              // the hash of the text that was asked for last, or 0
    found: usize,            // the text that was found last
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    new: usize,
    text: usize,
    end: usize,
    edits: (usize, usize),
    outcome: Outcome,
}

const WAYS: usize = 1 << 12;
const MAX_TEXT: usize = 1024; // bytes of the longest text that is held
const CREDIT: u32 = 1 << 10;

impl Default for Texts {
    fn default() -> Texts {
        Texts {
            seen: vec![0; WAYS],
            ways: vec![(0, 0); WAYS],
            held: vec![Held::default()], // no text
            bytes: Vec::new(),
            edits: Vec::new(),
            credit: CREDIT,
            asked: 0,
            found: 0,
        }
    }
}

/// A hash of few bits. Texts that differ in few places, wherever these are, differ in it.
#[inline(always)]
fn few(text: &[u8]) -> u32 {
    let mix = |few: u64, chunk: &[u8; 32]| {
        let (words, _) = chunk.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]).rotate_left(17 * at as u32);
        let mixed = product(few ^ word(0) ^ word(1) ^ word(2) ^ word(3), 0x9e37_79b9_7f4a_7c15);
        mixed as u64 ^ (mixed >> 64) as u64
    };
    let (chunks, rest) = text.as_chunks::<32>();
    let few = chunks.iter().fold(1, mix);
    let mut last = [0; 32];
    match text.last_chunk::<32>() {
        Some(chunk) => last = *chunk,
        None => last[..rest.len()].copy_from_slice(rest),
    }
    mix(few, &last) as u32
}

impl Texts {
    /// The length of the text that a line goes on with, if it is held.
    #[inline(always)]
    pub fn find(&mut self, rest: &[u8]) -> Option<usize> {
        // An exemplar has braces, too. Then the text that is asked for is another one each time.
        let end = memchr::memrchr(b'}', rest).filter(|end| *end < MAX_TEXT);
        self.asked = end.map_or(0, |end| few(&rest[..end]));
        let at = (self.asked as usize % WAYS) & !1;
        for (few, number) in &self.ways[at..at + 2] {
            if *few == self.asked && *number > 0 {
                let held = self.held[*number];
                if rest.starts_with(&self.bytes[held.text..held.end]) {
                    self.found = *number;
                    self.credit = (self.credit + 2).min(CREDIT);
                    return Some(held.end - held.text);
                }
            }
        }
        None
    }

    /// The outcome of the text that was found last, its edits, and the new text of these.
    #[inline(always)]
    pub fn outcome(&self) -> (Outcome, &[Edit], &[u8]) {
        let held = &self.held[self.found];
        let (start, end) = held.edits;
        (held.outcome, &self.edits[start..end], &self.bytes[held.new..held.text])
    }

    /// Whether the text that was asked for last, and is not held, came before. One that is too long
    /// did not.
    pub fn came(&mut self) -> bool {
        let seen = &mut self.seen[self.asked as usize % WAYS];
        std::mem::replace(seen, self.asked) == self.asked && self.asked != 0 && self.credit > 0
    }

    /// Holds the text that was asked for last, with its outcome.
    pub fn hold(&mut self, text: &[u8], outcome: Outcome, edits: &[Edit], new: &[u8]) {
        if text.len() + new.len() > MAX_TEXT || edits.len() > 8 {
            return;
        }
        if self.bytes.len() + ENTRY * self.held.len() > MAX_TEXTS {
            self.ways.fill((0, 0));
            self.held.truncate(1);
            self.bytes.clear();
            self.edits.clear();
        }
        self.credit -= 1;
        let at = (self.asked as usize % WAYS) & !1 | (self.credit & 1) as usize;
        self.ways[at] = (self.asked, self.held.len());
        let place = self.bytes.len();
        self.bytes.extend_from_slice(new);
        self.bytes.extend_from_slice(text);
        let first = self.edits.len();
        self.edits.extend_from_slice(edits);
        self.held.push(Held {
            new: place,
            text: place + new.len(),
            end: self.bytes.len(),
            edits: (first, self.edits.len()),
            outcome,
        });
    }
}

/// Verdicts about names.
#[derive(Debug)]
pub struct Verdicts<V> {
    known: Map<V>,
    size: usize,
}

impl<V> Default for Verdicts<V> {
    fn default() -> Verdicts<V> {
        Verdicts { known: Map::default(), size: 0 }
    }
}

impl<V: Copy> Verdicts<V> {
    /// The verdict about a key.
    pub fn get(&self, key: &[u8]) -> Option<V> {
        self.known.get(key).copied()
    }

    /// Forgets all verdicts.
    pub fn clear(&mut self) {
        self.known.clear();
        self.size = 0;
    }

    /// Remembers a verdict. All others are forgotten if they take too many bytes.
    pub fn put(&mut self, key: &[u8], verdict: V) {
        self.size += key.len() + ENTRY;
        if self.size > MAX_VERDICTS {
            self.clear();
            self.size = key.len() + ENTRY;
        }
        self.known.insert(key.into(), verdict);
    }
}

/// Polynomials over the bytes of texts, modulo the prime 2**61 - 1, each at a random place.
///
/// Of the 2**59 places at least, no more than n / 7 + 2 give the same sum for two different texts
/// of n bytes together, whoever chose the texts without knowing the place.
#[derive(Clone, Copy, Debug)]
pub struct Hash<const N: usize> {
    places: [u64; N],
    squares: [u64; N],
    sums: [u64; N], // each less than 2**62 + 2**60
}

const PRIME: u64 = (1 << 61) - 1;

/// Equal to a number modulo the prime. If the number is less than 2**124, it is less than 2**64.
fn fold(number: u128) -> u64 {
    (number as u64 & PRIME) + (number >> 61) as u64
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// A hash of 64 bits of a number below the prime. A map takes its highest bits and its lowest.
fn spread(number: u64) -> u64 {
    number ^ number << 61
}

/// The products of a digest with those of one label more, modulo the prime; each is less than 2**62.
fn times(products: [u64; 2], factors: [u64; 2]) -> [u64; 2] {
    [0, 1].map(|at| fold(fold(product(products[at], factors[at])).into()))
}

/// A random place and its square, both less than 2**60. So a sum times a square is less than
/// 2**123, and no sum reaches 2**62 + 2**60.
fn place() -> (u64, u64) {
    loop {
        let place = RandomState::new().build_hasher().finish() >> 4;
        let square = fold(product(place, place)) % PRIME;
        if place > 1 && square < 1 << 60 {
            return (place, square);
        }
    }
}

impl<const N: usize> Default for Hash<N> {
    fn default() -> Hash<N> {
        let both = [(); N].map(|()| place());
        Hash { places: both.map(|each| each.0), squares: both.map(|each| each.1), sums: [0; N] }
    }
}

impl<const N: usize> Hash<N> {
    /// Adds a text, whose length was added before: 15 bytes at a time.
    #[inline(always)]
    fn text(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(front) = rest.first_chunk::<16>() {
            self.two(u128::from_le_bytes(*front));
            rest = &rest[15..];
        }
        // 1 to 15 bytes are left, or the text is empty.
        self.two(match text.last_chunk::<16>() {
            Some(last) => u128::from_le_bytes(*last) >> (8 * (16 - rest.len())),
            None => short(rest),
        });
    }

    /// Adds the two numbers in 15 bytes.
    #[inline(always)]
    fn two(&mut self, bytes: u128) {
        const MASK: u64 = (1 << 60) - 1;
        let (first, second) = (bytes as u64 & MASK, (bytes >> 60) as u64 & MASK);
        for at in 0..N {
            let two = product(first, self.places[at]) + u128::from(second);
            self.sums[at] = fold(product(self.sums[at], self.squares[at]) + two);
        }
    }
}

/// The bytes of a text shorter than 16, as a number.
#[inline(always)]
fn short(text: &[u8]) -> u128 {
    let length = text.len();
    // The bytes that are read twice are the same.
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        u128::from(first) | u128::from(last) << (8 * (length - 8))
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u128::from(first) | u128::from(last) << (8 * (length - 4))
    } else {
        text.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

impl BuildHasher for Hash<1> {
    type Hasher = Hash<1>;

    fn build_hasher(&self) -> Hash<1> {
        *self
    }
}

impl Hasher for Hash<1> {
    fn finish(&self) -> u64 {
        // Without the product, texts that differ in few bits would fall into the same buckets.
        spread(fold(product(self.sums[0], self.places[0])) % PRIME)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.text(bytes);
    }

    fn write_usize(&mut self, length: usize) {
        self.sums = [length as u64];
    }
}

/// A digest of a set of labels, in any order: two independent products of the labels' hashes, each
/// added to a random number, modulo the prime.
///
/// Two different sets have the same product at few of the random numbers only: at no more than the
/// sets have labels. So for texts of a megabyte two digests are equal with a chance of 2**-80.
#[derive(Clone, Copy, Debug)]
pub struct Digest {
    hash: Hash<2>,
    random: [u64; 2],
    /// The digest, but for the keys.
    pub products: [u64; 2],
}

impl Digest {
    /// Adds a label: its name, `="` and its value, in one text, with the lengths of both.
    #[inline(always)]
    pub fn add(&mut self, name: usize, value: usize, both: &[u8]) {
        let factors = self.factors((name as u64) << 32 | value as u64, both);
        self.products = times(self.products, factors);
    }

    /// The factors of the name of a metric.
    fn metric(&self, name: &[u8]) -> [u64; 2] {
        self.factors(1 << 60 | name.len() as u64, name)
    }

    #[inline(always)]
    fn factors(&self, lengths: u64, text: &[u8]) -> [u64; 2] {
        let mut hash = Hash { sums: [lengths; 2], ..self.hash }; // each is less than 2**28
        hash.text(text);
        [self.random[0] + hash.sums[0], self.random[1] + hash.sums[1]] // less than 2**63
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest { hash: Hash::default(), random: [place().0, place().0], products: [1; 2] }
    }
}

/// Takes a digest as its hash.
#[derive(Default)]
pub struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        spread(self.0)
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Key([u64; 2]);

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// The series of an exposition: the digest of a series without some labels, and of these labels.
#[derive(Debug, Default)]
pub struct Series {
    known: HashMap<Key, [u64; 2], BuildHasherDefault<Taken>>,
    empty: Digest,
    last: (Vec<u8>, [u64; 2]), // the last name, and its factors in the digest
}

/// The outcome for a series.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first one with these labels that are kept.
    New,
    /// The same one again.
    Again,
    /// Another one. Without the labels that are dropped, it would be taken for the first one.
    Merged,
}

impl Series {
    /// Enters a series: its name, its labels that are kept, and the labels that are dropped.
    pub fn enter(&mut self, name: &[u8], kept: [u64; 2], dropped: [u64; 2]) -> Seen {
        let (last, factors) = &mut self.last;
        if last.is_empty() || last != name {
            *factors = self.empty.metric(name);
            last.clear();
            last.extend_from_slice(if name.len() > MAX_TEXT { b"" } else { name });
        }
        let kept = times(kept, *factors).map(|each| each % PRIME);
        let dropped = dropped.map(|each| each % PRIME);
        match self.known.entry(Key(kept)) {
            Entry::Vacant(entry) => {
                entry.insert(dropped);
                Seen::New
            }
            Entry::Occupied(entry) if *entry.get() == dropped => Seen::Again,
            Entry::Occupied(_) => Seen::Merged,
        }
    }

    /// A digest that begins with other labels.
    #[inline(always)]
    pub fn digest(&self, products: [u64; 2]) -> Digest {
        Digest { products, ..self.empty }
    }

    /// Forgets all series.
    pub fn forget(&mut self) {
        self.known = HashMap::default();
    }
}
