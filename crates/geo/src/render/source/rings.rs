//! Rings from ways: the border of a multipolygon is a set of lines that fit together at their ends.

use std::collections::HashMap;

/// Joins ways, given as numbers of nodes, to closed rings (the first node not repeated). What does not close is left
/// out.
pub(super) fn join(ways: Vec<&[i64]>) -> Vec<Vec<i64>> {
    let mut at_end: HashMap<i64, Vec<usize>> = HashMap::new();
    for (index, way) in ways.iter().enumerate() {
        if let [first, .., last] = way {
            at_end.entry(*first).or_default().push(index);
            at_end.entry(*last).or_default().push(index);
        }
    }
    let mut is_used = vec![false; ways.len()];
    let mut rings = Vec::new();
    for start in 0..ways.len() {
        if is_used[start] || ways[start].len() < 2 {
            continue;
        }
        is_used[start] = true;
        let mut ring = ways[start].to_vec();
        while ring.first() != ring.last() {
            let end = ring[ring.len() - 1];
            // Each way is at two ends only, so what was used is dropped for good.
            let waiting = at_end.entry(end).or_default();
            while waiting.last().is_some_and(|index| is_used[*index]) {
                waiting.pop();
            }
            let Some(next) = waiting.pop() else { break };
            is_used[next] = true;
            let way = ways[next];
            if way[0] == end {
                ring.extend(&way[1..]);
            } else {
                ring.extend(way.iter().rev().skip(1));
            }
        }
        if ring.len() > 3 && ring.first() == ring.last() {
            ring.pop();
            rings.push(ring);
        }
    }
    rings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_joined_in_any_order_and_direction() {
        let ways: [&[i64]; 5] = [&[1, 2, 3], &[5, 4, 3], &[5, 1], &[7, 8, 9, 7], &[10, 11]];
        assert_eq!(join(ways.to_vec()), [vec![1, 2, 3, 4, 5], vec![7, 8, 9]]);
        assert!(join(vec![&[], &[1], &[1, 1], &[2, 3]]).is_empty());
    }
}
