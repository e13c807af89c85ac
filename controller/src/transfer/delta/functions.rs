//! Matches the function tables of two builds of a Go program by the names of the functions.
//!
//! A new function changes a word or two in the entry of every function behind it, so a search for equal bytes finds
//! nothing there.

use std::collections::HashMap;
use std::ops::Range;

use super::image::{Function, GoTables};
use super::search::Copy;

/// Bytes of a function in the index.
pub const PAIR: usize = 8;

/// Consecutive functions that both programs have in the same order.
struct Row {
    old: usize,
    new: usize,
    count: usize,
}

/// These copies, which make a program of `length` bytes, with the functions and their index copied by name instead.
pub fn by_name(copies: &[Copy], old: &GoTables<'_>, new: &GoTables<'_>, length: usize) -> Vec<Copy> {
    let Some(last) = new.functions.last() else { return copies.to_vec() };
    let mut found = Vec::new();
    for part in [0..new.index.start, last.at..length] {
        found.extend(copies.iter().filter_map(|copy| within(copy, &part)));
    }
    for Row { old: from, new: to, count } in rows(old, new, |_, _| true) {
        let copied = count * PAIR;
        found.push(Copy {
            from: old.index.start + from * PAIR,
            to: new.index.start + to * PAIR,
            copied,
            new: 0,
        });
    }
    // A function whose entry has another size than before is new.
    let size =
        |functions: &[Function<'_>], index: usize| Some(functions.get(index + 1)?.at - functions[index].at);
    let has_size = |from, to| {
        let size_now = size(&new.functions, to);
        size_now.is_some() && size_now == size(&old.functions, from)
    };
    for Row { old: from, new: to, count } in rows(old, new, has_size) {
        let (start, end) = (new.functions[to].at, new.functions[to + count].at);
        found.push(Copy { from: old.functions[from].at, to: start, copied: end - start, new: 0 });
    }
    found.sort_by_key(|copy| copy.to);
    // The bytes before the first copy are new, behind an empty copy.
    found.insert(0, Copy { from: 0, to: 0, copied: 0, new: 0 });
    let starts = found.iter().skip(1).map(|copy| copy.to).chain([length]).collect::<Vec<_>>();
    for (copy, next) in found.iter_mut().zip(starts) {
        copy.new = next - (copy.to + copy.copied);
    }
    found.retain(|copy| copy.copied + copy.new > 0);
    found
}

/// The piece of a copy that lies in a part of the program.
fn within(copy: &Copy, part: &Range<usize>) -> Option<Copy> {
    let (start, end) = (copy.to.max(part.start), (copy.to + copy.copied).min(part.end));
    (start < end).then(|| Copy {
        from: copy.from + (start - copy.to),
        to: start,
        copied: end - start,
        new: 0,
    })
}

/// Functions of the same name that fit, in as few rows as possible.
fn rows(old: &GoTables<'_>, new: &GoTables<'_>, fit: impl Fn(usize, usize) -> bool) -> Vec<Row> {
    // The first one of a name, from where the others follow.
    let functions = old.functions.iter().enumerate().rev();
    let by_name: HashMap<&[u8], usize> = functions.map(|(index, function)| (function.name, index)).collect();
    let mut rows: Vec<Row> = Vec::new();
    for (to, function) in new.functions.iter().enumerate() {
        if let Some(row) = rows.last_mut().filter(|row| row.new + row.count == to) {
            // Several may have one name.
            let from = row.old + row.count;
            if old.functions.get(from).is_some_and(|next| next.name == function.name) && fit(from, to) {
                row.count += 1;
                continue;
            }
        }
        if let Some(from) = by_name.get(function.name).filter(|from| fit(**from, to)) {
            rows.push(Row { old: *from, new: to, count: 1 });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use hop_formats::relocation::ORIGINS;

    use super::*;

    /// A table of functions from there on: their names, and how many bytes each has.
    fn table(start: usize, functions: &[(&'static str, usize)]) -> GoTables<'static> {
        let index = start..start + PAIR * functions.len() + 4;
        let mut at = index.end;
        let functions = functions.iter().map(|(name, bytes)| {
            let function = Function { at, name: name.as_bytes() };
            at += bytes;
            function
        });
        GoTables { functions: functions.collect(), index, origins: [0; ORIGINS] }
    }

    /// Where each byte of the program comes from, of what is copied.
    fn origins(copies: &[Copy], length: usize) -> Vec<Option<usize>> {
        let mut origins = Vec::new();
        for copy in copies {
            assert_eq!(copy.to, origins.len(), "one begins where the one before it ends");
            origins.extend((copy.from..copy.from + copy.copied).map(Some));
            origins.extend(std::iter::repeat_n(None, copy.new));
        }
        assert_eq!(origins.len(), length);
        origins
    }

    #[test]
    fn functions_are_copied_by_name() {
        let old =
            table(100, &[("a", 44), ("twice", 48), ("twice", 52), ("longer", 44), ("b", 60), ("last", 44)]);
        let new = table(
            108,
            &[("a", 44), ("new", 44), ("twice", 48), ("twice", 52), ("longer", 48), ("b", 60), ("last", 44)],
        );
        // All of the program from 8 bytes before, as if nothing had happened.
        let length = new.functions[6].at + 100;
        let copies = by_name(&[Copy { from: 0, to: 8, copied: length - 20, new: 12 }], &old, &new, length);
        let origins = origins(&copies, length);
        assert_eq!((origins[7], origins[8], origins[107]), (None, Some(0), Some(99)));
        let from = |range: Range<usize>| origins[range].to_vec();
        let all = |range: Range<usize>| range.map(Some).collect::<Vec<_>>();
        // In the index: the new one is new, and those behind it come from one place before.
        assert_eq!(from(108..116), all(100..108));
        assert_eq!(from(116..124), [None; 8]);
        assert_eq!(from(124..164), all(108..148));
        for (index, before) in [(0, Some(0)), (1, None), (2, Some(1)), (3, Some(2)), (4, None), (5, Some(4))]
        {
            let (at, end) = (new.functions[index].at, new.functions[index + 1].at);
            let expected = match before {
                Some(before) => all(old.functions[before].at..old.functions[before + 1].at),
                None => vec![None; end - at],
            };
            assert_eq!(from(at..end), expected, "function {index}");
        }
        // The last one, and what is behind it.
        let last = new.functions[6].at;
        assert_eq!(
            (origins[last], origins[length - 13], origins[length - 12]),
            (Some(last - 8), Some(length - 21), None)
        );
    }
}
