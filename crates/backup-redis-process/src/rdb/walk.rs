//! Every key of a snapshot, counted and hashed.
//!
//! The format is described by nobody but the server's own `rdb.c`; what is read here is what Redis
//! 2.6 to 7.4 write.

use std::collections::BTreeMap;

use super::digest::{Value, score, together};
use super::input::{Fault, Input, Length, Text};
use super::packed::{intset, listpack, ziplist};

/// Keys of one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// How many.
    pub(crate) count: u64,
    /// Bytes of their names and values.
    pub(crate) bytes: u64,
    /// Sum of what identifies each: name, kind, value, end.
    pub(crate) hash: u128,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// By number, the first one always.
    pub(crate) databases: BTreeMap<u64, Keys>,
    /// Libraries of functions.
    pub(crate) functions: Keys,
    /// Keys by kind, and those with an end.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    /// Modules that wrote something of their own into it.
    pub(crate) modules: u64,
}

const HEADER: usize = 9;

const MODULE_AUX: u8 = 247;
const FUNCTION: u8 = 245;
const SLOT_INFO: u8 = 244;
const FREQUENCY: u8 = 249;
const IDLE: u8 = 248;
const AUX: u8 = 250;
const SIZES: u8 = 251;
const EXPIRES_MS: u8 = 252;
const EXPIRES: u8 = 253;
const DATABASE: u8 = 254;
const END: u8 = 255;

/// Reads a snapshot to its end.
pub(crate) fn walk(input: &mut Input) -> Result<Content, Fault> {
    let _: [u8; HEADER] = input.array()?;
    let mut content = Content::default();
    content.databases.insert(0, Keys::default());
    let (mut database, mut expires) = (0, None);
    loop {
        match input.byte()? {
            AUX => {
                input.text()?;
                input.text()?;
            }
            SIZES => {
                input.count()?;
                input.count()?;
            }
            DATABASE => database = input.count()?,
            EXPIRES => {
                let seconds = u32::from_le_bytes(input.array()?);
                expires = Some(u64::from(seconds) * 1000);
            }
            EXPIRES_MS => expires = Some(u64::from_le_bytes(input.array()?)),
            FREQUENCY => drop(input.byte()?),
            IDLE => drop(input.count()?),
            SLOT_INFO => {
                for _ in 0..3 {
                    input.count()?;
                }
            }
            FUNCTION => {
                let code = input.text()?;
                add(
                    &mut content.functions,
                    together(b"function", &[code.hash]),
                    code.bytes,
                );
            }
            MODULE_AUX => {
                content.modules += 1;
                for _ in 0..3 {
                    input.count()?;
                }
                module(input, &mut Value::default())?;
            }
            END => break,
            kind => {
                let key = input.text()?;
                let (name, value) = value(kind, input)?;
                let until = u128::from(expires.take().unwrap_or(u64::MAX));
                let hash = together(name.as_bytes(), &[key.hash, value.hash(), until]);
                let keys = content.databases.entry(database).or_default();
                add(keys, hash, key.bytes + value.bytes);
                *content.kinds.entry(name).or_default() += 1;
                if until != u128::from(u64::MAX) {
                    *content.kinds.entry("expiring_keys").or_default() += 1;
                }
            }
        }
    }
    let _: [u8; 8] = input.array()?;
    if input.is_over() {
        Ok(content)
    } else {
        Err(Fault::Malformed("something comes after its end"))
    }
}

fn add(keys: &mut Keys, hash: u128, bytes: u64) {
    keys.count += 1;
    keys.bytes += bytes;
    keys.hash = keys.hash.wrapping_add(hash);
}

/// A value of the type that `kind` says, and what people call it.
fn value(kind: u8, input: &mut Input) -> Result<(&'static str, Value), Fault> {
    let mut value = Value::default();
    let name = match kind {
        0 => {
            value = Value::text(input.text()?);
            "strings"
        }
        1 | 10 | 14 | 18 => {
            list(kind, input, &mut value)?;
            "lists"
        }
        2 | 11 | 20 => {
            set(kind, input, &mut value)?;
            "sets"
        }
        3 | 5 | 12 | 17 => {
            sorted_set(kind, input, &mut value)?;
            "sorted_sets"
        }
        4 | 13 | 16 | 24 | 25 => {
            hash(kind, input, &mut value)?;
            "hashes"
        }
        15 | 19 | 21 => {
            stream(kind, input, &mut value)?;
            "streams"
        }
        7 => {
            value.number(u128::from(input.count()?));
            module(input, &mut value)?;
            "module_values"
        }
        unknown => return Err(Fault::Unknown(unknown)),
    };
    Ok((name, value))
}

fn list(kind: u8, input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    let mut next = |element: &[u8]| {
        value.next(Text::of(element));
        Ok(())
    };
    match kind {
        10 => return ziplist(&input.packed()?, &mut next),
        14 => {
            for _ in 0..input.count()? {
                ziplist(&input.packed()?, &mut next)?;
            }
        }
        18 => {
            for _ in 0..input.count()? {
                // One that is too large to be packed has a node of its own.
                match input.count()? {
                    1 => value.next(input.text()?),
                    2 => listpack(&input.packed()?, &mut |element| {
                        value.next(Text::of(element));
                        Ok(())
                    })?,
                    _ => return Err(Fault::Malformed("a list has a node of no known form")),
                }
            }
        }
        _ => {
            for _ in 0..input.count()? {
                value.next(input.text()?);
            }
        }
    }
    Ok(())
}

fn set(kind: u8, input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    let mut any = |element: &[u8]| {
        value.anywhere(b"set", &[Text::of(element)]);
        Ok(())
    };
    match kind {
        11 => intset(&input.packed()?, &mut any),
        20 => listpack(&input.packed()?, &mut any),
        _ => {
            for _ in 0..input.count()? {
                value.anywhere(b"set", &[input.text()?]);
            }
            Ok(())
        }
    }
}

const WRONG_SCORE: Fault = Fault::Malformed("a score is no number");

fn sorted_set(kind: u8, input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    if matches!(kind, 12 | 17) {
        let packed = input.packed()?;
        let unpack = if kind == 12 { ziplist } else { listpack };
        return groups::<2>(&packed, unpack, |[member, number]| {
            let number: f64 = std::str::from_utf8(number)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(WRONG_SCORE)?;
            value.anywhere(b"sorted", &[Text::of(member), score(number)]);
            Ok(())
        });
    }
    for _ in 0..input.count()? {
        let member = input.text()?;
        let number = if kind == 5 {
            f64::from_le_bytes(input.array()?)
        } else {
            old_score(input)?
        };
        value.anywhere(b"sorted", &[member, score(number)]);
    }
    Ok(())
}

/// As servers before 4 wrote it.
fn old_score(input: &mut Input) -> Result<f64, Fault> {
    let length = match input.byte()? {
        255 => return Ok(f64::NEG_INFINITY),
        254 => return Ok(f64::INFINITY),
        253 => return Ok(f64::NAN),
        length => length,
    };
    let mut text = String::new();
    for _ in 0..length {
        text.push(char::from(input.byte()?));
    }
    text.parse().map_err(|_| WRONG_SCORE)
}

fn hash(kind: u8, input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    match kind {
        13 | 16 => {
            let packed = input.packed()?;
            let unpack = if kind == 13 { ziplist } else { listpack };
            return groups::<2>(&packed, unpack, |[field, content]| {
                value.anywhere(b"hash", &[Text::of(field), Text::of(content)]);
                Ok(())
            });
        }
        // Fields that end one by one, since 7.4.
        25 => {
            let _: [u8; 8] = input.array()?;
            let packed = input.packed()?;
            return groups::<3>(&packed, listpack, |[field, content, until]| {
                let until = Text::of(if until == b"0" { b"" } else { until });
                field_until(value, Text::of(field), Text::of(content), until);
                Ok(())
            });
        }
        24 => {
            let first = u64::from_le_bytes(input.array()?);
            for _ in 0..input.count()? {
                let until = match input.count()? {
                    0 => String::new(),
                    after => first.wrapping_add(after).wrapping_sub(1).to_string(),
                };
                let (field, content) = (input.text()?, input.text()?);
                field_until(value, field, content, Text::of(until.as_bytes()));
            }
        }
        _ => {
            for _ in 0..input.count()? {
                let (field, content) = (input.text()?, input.text()?);
                value.anywhere(b"hash", &[field, content]);
            }
        }
    }
    Ok(())
}

fn field_until(value: &mut Value, field: Text, content: Text, until: Text) {
    if until.bytes == 0 {
        value.anywhere(b"hash", &[field, content]);
    } else {
        value.anywhere(b"hash", &[field, content, until]);
    }
}

type Unpack = fn(&[u8], &mut super::packed::Sink<'_>) -> Result<(), Fault>;

/// Elements that belong together, so many at a time.
fn groups<const N: usize>(
    packed: &[u8],
    unpack: Unpack,
    mut each: impl FnMut([&[u8]; N]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut group: Vec<Vec<u8>> = Vec::with_capacity(N);
    unpack(packed, &mut |element| {
        group.push(element.to_vec());
        if group.len() == N {
            each(std::array::from_fn(|index| group[index].as_slice()))?;
            group.clear();
        }
        Ok(())
    })?;
    if group.is_empty() {
        Ok(())
    } else {
        Err(Fault::Malformed("a packed value lacks an element"))
    }
}

/// What all versions say of a stream: later ones also count what is gone, and remember more of its
/// readers, which a server makes up where it is not there.
fn stream(kind: u8, input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    for _ in 0..input.count()? {
        value.next(input.text()?);
        value.next(input.text()?);
    }
    for _ in 0..3 {
        value.number(u128::from(input.count()?));
    }
    if kind != 15 {
        for _ in 0..5 {
            input.count()?;
        }
    }
    for _ in 0..input.count()? {
        value.next(input.text()?);
        for _ in 0..2 {
            value.number(u128::from(input.count()?));
        }
        if kind != 15 {
            input.count()?;
        }
        for _ in 0..input.count()? {
            value.number(u128::from_le_bytes(input.array()?));
            value.number(u128::from(u64::from_le_bytes(input.array()?)));
            value.number(u128::from(input.count()?));
        }
        for _ in 0..input.count()? {
            value.next(input.text()?);
            let _: [u8; 8] = input.array()?;
            if kind == 21 {
                let _: [u8; 8] = input.array()?;
            }
            for _ in 0..input.count()? {
                value.number(u128::from_le_bytes(input.array()?));
            }
        }
    }
    Ok(())
}

/// What a module wrote: it says of each piece what it is, so it can be passed over.
fn module(input: &mut Input, value: &mut Value) -> Result<(), Fault> {
    loop {
        match input.length()? {
            Length::Plain(0) => return Ok(()),
            Length::Plain(1 | 2) => value.number(u128::from(input.count()?)),
            Length::Plain(3) => value.number(u128::from(u32::from_le_bytes(input.array()?))),
            Length::Plain(4) => value.number(u128::from(u64::from_le_bytes(input.array()?))),
            Length::Plain(5) => value.next(input.text()?),
            _ => {
                return Err(Fault::Malformed(
                    "a module wrote something of no known form",
                ));
            }
        }
    }
}
