//! How long and how wide an outline is.

/// Long and short axis of a closed outline, in its own unit; none of fewer than three points.
///
/// The long axis is the greatest distance of two of its points (greatest caliper or Feret diameter), the short axis the
/// distance of the two lines parallel to it that hold the outline between them: its greatest width across.
pub(super) fn axes(outline: &[[f64; 2]]) -> Option<(f64, f64)> {
    let hull = hull(outline);
    if hull.len() < 3 {
        return None;
    }
    let (a, b) = farthest(&hull);
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let long = dx.hypot(dy);
    let across = hull.iter().map(|point| (dx * (point[1] - a[1]) - dy * (point[0] - a[0])) / long);
    let (least, greatest) = across.fold((0.0f64, 0.0f64), |(least, most), at| (least.min(at), most.max(at)));
    Some((long, greatest - least))
}

/// The two corners of a convex outline that are farthest from each other (rotating calipers).
fn farthest(hull: &[[f64; 2]]) -> ([f64; 2], [f64; 2]) {
    let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let count = hull.len();
    let mut best = (hull[0], hull[1]);
    let mut far = 1;
    for near in 0..count {
        let next = (near + 1) % count;
        // The corner farthest from this edge only ever moves on; equal distances move on too, for parallel edges.
        for _ in 0..count {
            let after = (far + 1) % count;
            for end in [near, next] {
                if distance(hull[end], hull[far]) > distance(best.0, best.1) {
                    best = (hull[end], hull[far]);
                }
            }
            if turn(hull[near], hull[next], hull[after]) < turn(hull[near], hull[next], hull[far]) {
                break;
            }
            far = after;
        }
    }
    best
}

/// Twice the signed area of a triangle.
fn turn(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// Convex hull, corners only, turning left (monotone chain).
fn hull(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    sorted.dedup();
    let mut hull: Vec<[f64; 2]> = Vec::new();
    let half = |hull: &mut Vec<[f64; 2]>, points: &mut dyn Iterator<Item = [f64; 2]>| {
        let begin = hull.len();
        for point in points {
            while hull.len() >= begin + 2 && turn(hull[hull.len() - 2], hull[hull.len() - 1], point) <= 0.0 {
                hull.pop();
            }
            hull.push(point);
        }
        hull.pop();
    };
    half(&mut hull, &mut sorted.iter().copied());
    half(&mut hull, &mut sorted.iter().rev().copied());
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_long_axis_is_the_greatest_distance_and_the_short_one_the_width_across(
            points in prop::collection::vec((-50i32..50, -50i32..50), 3..40),
        ) {
            let points: Vec<[f64; 2]> = points.into_iter().map(|(x, y)| [f64::from(x), f64::from(y)]).collect();
            let pairs = || points.iter().flat_map(|a| points.iter().map(move |b| (*a, *b)));
            let distance = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
            let greatest = pairs().map(|(a, b)| distance(a, b)).fold(0.0, f64::max);
            let Some((long, short)) = axes(&points) else {
                // All on one line.
                let line = |(a, b): ([f64; 2], [f64; 2])| points.iter().all(|c| turn(a, b, *c) == 0.0);
                prop_assert!(pairs().any(|(a, b)| a != b && line((a, b))) || greatest == 0.0);
                return Ok(());
            };
            prop_assert!((long - greatest).abs() < 1e-9, "{} of {}", long, greatest);
            // Several pairs may be as far apart: the width across one of them.
            let across = |a: [f64; 2], b: [f64; 2]| {
                let sides: Vec<f64> = points.iter().map(|c| turn(a, b, *c) / greatest).collect();
                sides.iter().copied().fold(f64::MIN, f64::max) - sides.iter().copied().fold(f64::MAX, f64::min)
            };
            let fits = |(a, b): ([f64; 2], [f64; 2])| {
                distance(a, b) > greatest - 1e-9 && (across(a, b) - short).abs() < 1e-9
            };
            prop_assert!(pairs().any(fits), "{} is not across", short);
        }
    }
}
