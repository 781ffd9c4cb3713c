//! Rules arranged for matching: exact paths by hash, prefixes by binary search, `+` by a trie.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::policy::PolicyName;
use crate::core::policy::capability::CapabilitySet;
use crate::core::policy::constraint::Constraints;
use crate::core::policy::pattern::{Kind, Pattern};

/// A rule and the policy that it comes from.
#[derive(Clone, Debug)]
pub(super) struct OwnedRule {
    pub policy: PolicyName,
    pub pattern: Pattern,
    pub capabilities: CapabilitySet,
    pub constraints: Option<Arc<Constraints>>,
}

/// Fixed rules, those with the same pattern side by side.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    rules: Vec<OwnedRule>,
    /// Which rules share a pattern, as a range of `rules`.
    groups: Vec<(usize, usize)>,
    exact: HashMap<Arc<str>, usize>,
    /// Patterns with wildcards, by their text. Apart from the exact ones: a request for the path
    /// `secret/*` itself must not find the rule of that spelling.
    wild: HashMap<Arc<str>, usize>,
    prefixes: PrefixTable,
    segments: SegmentTrie,
}

impl RuleIndex {
    pub(super) fn new(mut rules: Vec<OwnedRule>) -> Self {
        rules.sort_by(|a, b| a.pattern.cmp(&b.pattern));
        let mut index = Self::default();
        let mut prefixes = Vec::new();
        let mut start = 0;
        for shared in rules.chunk_by(|a, b| a.pattern == b.pattern) {
            let Some(first) = shared.first() else { continue };
            let group = index.groups.len();
            index.groups.push((start, start + shared.len()));
            start += shared.len();
            let pattern = &first.pattern;
            match pattern.kind() {
                Kind::Exact => {
                    index.exact.insert(pattern.shared(), group);
                    continue;
                }
                Kind::Prefix => prefixes.push((Box::from(pattern.literal()), group)),
                Kind::Segments { open, .. } => {
                    index.segments.insert(pattern.literal(), open, group);
                }
            }
            index.wild.insert(pattern.shared(), group);
        }
        index.rules = rules;
        index.prefixes = PrefixTable::new(prefixes);
        index.segments.seal();
        index
    }

    pub(super) fn rules(&self) -> &[OwnedRule] {
        &self.rules
    }

    fn group(&self, group: usize) -> &[OwnedRule] {
        let range = self.groups.get(group).copied();
        range.and_then(|(start, end)| self.rules.get(start..end)).unwrap_or_default()
    }

    fn pattern(&self, group: usize) -> Option<&Pattern> {
        self.group(group).first().map(|rule| &rule.pattern)
    }

    /// The rules whose pattern is exactly this path.
    pub(super) fn exact(&self, path: &str) -> &[OwnedRule] {
        self.exact.get(path).map_or(&[], |group| self.group(*group))
    }

    /// The rules with the same pattern.
    pub(super) fn with_pattern(&self, pattern: &Pattern) -> &[OwnedRule] {
        let map = match pattern.kind() {
            Kind::Exact => &self.exact,
            Kind::Prefix | Kind::Segments { .. } => &self.wild,
        };
        map.get(pattern.as_str()).map_or(&[], |group| self.group(*group))
    }

    /// The pattern with wildcards that stands highest among those that match.
    pub(super) fn best_wild(&self, path: &str) -> Option<&Pattern> {
        let prefix = self.prefixes.longest(path).and_then(|group| self.pattern(group));
        let segments = self.segments.best(self, path);
        prefix.into_iter().chain(segments).max_by_key(|pattern| pattern.priority())
    }
}

/// Finds the longest of many prefixes of a text.
#[derive(Debug, Default)]
struct PrefixTable {
    /// Sorted by text.
    entries: Vec<PrefixEntry>,
}

#[derive(Debug)]
struct PrefixEntry {
    text: Box<str>,
    /// The longest other entry that is a prefix of this one.
    parent: Option<usize>,
    group: usize,
}

impl PrefixTable {
    fn new(mut prefixes: Vec<(Box<str>, usize)>) -> Self {
        prefixes.sort();
        let mut entries: Vec<PrefixEntry> = Vec::with_capacity(prefixes.len());
        for (position, (text, group)) in prefixes.into_iter().enumerate() {
            // In sorted order the parent is the entry before, or one of its ancestors.
            let mut parent = position.checked_sub(1);
            while let Some(entry) = parent.and_then(|p| entries.get(p)) {
                if text.starts_with(&*entry.text) {
                    break;
                }
                parent = entry.parent;
            }
            entries.push(PrefixEntry { text, parent, group });
        }
        Self { entries }
    }

    /// The group of the longest prefix of `path`. It is the greatest entry not above `path`, or an
    /// ancestor of that: whatever sorts between a prefix of `path` and `path` starts with it too.
    fn longest(&self, path: &str) -> Option<usize> {
        let after = self.entries.partition_point(|entry| *entry.text <= *path);
        let mut entry = self.entries.get(after.checked_sub(1)?)?;
        let common =
            entry.text.bytes().zip(path.bytes()).take_while(|(own, other)| own == other).count();
        while entry.text.len() > common {
            entry = self.entries.get(entry.parent?)?;
        }
        Some(entry.group)
    }
}

/// Patterns with `+`, by segment.
#[derive(Debug)]
struct SegmentTrie {
    nodes: Vec<SegmentNode>,
}

#[derive(Debug, Default)]
struct SegmentNode {
    literals: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    /// The pattern that ends before this node.
    group: Option<usize>,
    /// Patterns that end in `*` within the segment of this node.
    open: PrefixTable,
    /// Those patterns before they are sorted.
    unsorted: Vec<(Box<str>, usize)>,
}

impl Default for SegmentTrie {
    fn default() -> Self {
        Self { nodes: vec![SegmentNode::default()] }
    }
}

impl SegmentTrie {
    const ROOT: usize = 0;

    fn insert(&mut self, literal: &str, open: bool, group: usize) {
        let (closed, tail) = match literal.rsplit_once('/') {
            Some((closed, tail)) if open => (Some(closed), Some(tail)),
            None if open => (None, Some(literal)),
            Some(_) | None => (Some(literal), None),
        };
        let mut at = Self::ROOT;
        for segment in closed.into_iter().flat_map(|closed| closed.split('/')) {
            at = self.child(at, segment);
        }
        let Some(node) = self.nodes.get_mut(at) else { return };
        match tail {
            Some(tail) => node.unsorted.push((tail.into(), group)),
            None => node.group = Some(group),
        }
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        let fresh = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return fresh };
        let child = if segment == "+" {
            *node.plus.get_or_insert(fresh)
        } else {
            *node.literals.entry(segment.into()).or_insert(fresh)
        };
        if child == fresh {
            self.nodes.push(SegmentNode::default());
        }
        child
    }

    fn seal(&mut self) {
        for node in &mut self.nodes {
            node.open = PrefixTable::new(std::mem::take(&mut node.unsorted));
        }
    }

    fn best<'a>(&'a self, index: &'a RuleIndex, path: &str) -> Option<&'a Pattern> {
        let root = self.nodes.get(Self::ROOT)?;
        if root.plus.is_none() && root.literals.is_empty() {
            return None;
        }
        self.descend(index, root, Some(path), false)
    }

    /// The best pattern below `node` for what is left of a path. As deep as the path has segments.
    fn descend<'a>(
        &'a self,
        index: &'a RuleIndex,
        node: &'a SegmentNode,
        rest: Option<&str>,
        wild: bool,
    ) -> Option<&'a Pattern> {
        let Some(rest) = rest else {
            return node.group.and_then(|group| index.pattern(group));
        };
        let (segment, tail) = match rest.split_once('/') {
            Some((segment, tail)) => (segment, Some(tail)),
            None => (rest, None),
        };
        let literal = node.literals.get(segment).and_then(|child| self.nodes.get(*child));
        let literal = literal.and_then(|child| self.descend(index, child, tail, wild));
        if literal.is_some() && !wild {
            // Its first `+` comes later than any that could be taken here.
            return literal;
        }
        let plus = node.plus.and_then(|child| self.nodes.get(child));
        let plus = plus.and_then(|child| self.descend(index, child, tail, true));
        let open = node.open.longest(segment).and_then(|group| index.pattern(group));
        literal.into_iter().chain(plus).chain(open).max_by_key(|pattern| pattern.priority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_prefix_is_found(
            prefixes in proptest::collection::btree_set("[ab/]{0,5}", 0..12),
            path in "[ab/]{0,7}",
        ) {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let table = PrefixTable::new(
                prefixes.iter().enumerate().map(|(i, p)| (p.as_str().into(), i)).collect(),
            );
            let expected = prefixes
                .iter()
                .enumerate()
                .filter(|(_, p)| path.starts_with(p.as_str()))
                .max_by_key(|(_, p)| p.len())
                .map(|(i, _)| i);
            prop_assert_eq!(table.longest(&path), expected);
        }
    }
}
