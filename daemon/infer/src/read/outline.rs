//! From a map to outlines: the level lines of its surface (marching squares), and fewer points for the same shape.
//!
//! In: a map of logits. Out: closed outlines of what lies at or above a threshold, largest first.
//! Promise: the surface between elements is bilinear, so a line lies between elements and not on their corners, and
//! where four elements cross over, the surface itself says what is joined. Every outline is closed at the map's edge.

/// Most points of an outline that is told.
pub const OUTLINE_POINTS_MAX: usize = 256;
/// Most points that are looked at one by one: of a longer line every n-th.
const DENSE_POINTS_MAX: usize = 4096;
/// Below the logit of any probability that is kept off 0.
const OUTSIDE: f32 = -100.0;

/// One closed outline; coordinates are elements of the map, (0,0) is the middle of the first.
#[derive(Clone, Debug)]
pub(super) struct Contour {
    pub points: Vec<[f32; 2]>,
    /// Enclosed, square elements; what is inside a hole counts.
    pub area: f64,
}

/// What of one axis of a map is looked at, and where: nodes in rising order. Between the elements inside and beside them, at
/// both ends, the place where the part ends, with the value that the surface has there; around these, at the same place,
/// what is below any threshold.
pub(super) struct Axis {
    /// Of the map.
    elements: usize,
    /// In elements; the first two are at one place, and so are the last two. Empty where nothing is looked at.
    nodes: Vec<f32>,
}

impl Axis {
    /// `part`: from where to where, -0.5 to `elements` - 0.5: an element's middle is its index, a tensor ends half an element on.
    pub fn new(elements: usize, (from, to): (f32, f32)) -> Self {
        if from >= to {
            return Self { elements, nodes: Vec::new() };
        }
        let inside = (0..elements).map(|index| index as f32).filter(|at| *at > from && *at < to);
        Self { elements, nodes: [from; 2].into_iter().chain(inside).chain([to; 2]).collect() }
    }

    /// The two elements beside a place and the share of the second; the surface goes on level beyond the last ones.
    fn beside(&self, at: f32) -> (usize, usize, f32) {
        let at = at.clamp(0.0, (self.elements - 1) as f32);
        let first = at as usize;
        (first, (first + 1).min(self.elements - 1), at - first as f32)
    }
}

/// A surface and the part of it that is looked at.
pub(super) struct Map<'a> {
    /// Row by row, as many as both axes have elements.
    pub values: &'a [f32],
    pub across: Axis,
    pub down: Axis,
}

impl Map<'_> {
    fn at(&self, x: f32, y: f32) -> f32 {
        let ((left, right, share), (above, below, down)) = (self.across.beside(x), self.down.beside(y));
        let line = |row: usize| {
            let row = &self.values[row * self.across.elements..][..self.across.elements];
            row[left] + (row[right] - row[left]) * share
        };
        line(above) + (line(below) - line(above)) * down
    }
}

/// Outer lines of the areas at or above `threshold` (above -100), largest first, at most `most`, each of at least
/// `area_min` elements. Equal ones in the order of their first row.
pub(super) fn largest(map: &Map<'_>, threshold: f32, area_min: f64, most: usize) -> Vec<Contour> {
    if map.across.nodes.is_empty() || map.down.nodes.is_empty() {
        return Vec::new();
    }
    let mut surface = Surface::new(map, threshold);
    let mut kept: Vec<Contour> = Vec::new();
    for row in 0..surface.rows {
        for column in 0..surface.columns - 1 {
            if !surface.is_start(column, row) {
                continue;
            }
            let contour = surface.trace(column, row);
            // Holes turn the other way round.
            if contour.area <= 0.0 || contour.area < area_min {
                continue;
            }
            let place = kept.partition_point(|other| other.area >= contour.area);
            if place < most {
                kept.insert(place, contour);
                kept.truncate(most);
            }
        }
    }
    kept
}

/// The values at all nodes of both axes.
struct Surface<'a> {
    values: Vec<f32>,
    map: &'a Map<'a>,
    columns: usize,
    rows: usize,
    threshold: f32,
    /// Of each edge from an element to its right neighbour: whether a line has crossed it.
    crossed: Vec<bool>,
}

/// Sides of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Top,
    Right,
    Bottom,
    Left,
}

impl<'a> Surface<'a> {
    fn new(map: &'a Map<'a>, threshold: f32) -> Self {
        let (columns, rows) = (map.across.nodes.len(), map.down.nodes.len());
        let mut values = vec![OUTSIDE; columns * rows];
        for row in 1..rows - 1 {
            for column in 1..columns - 1 {
                values[row * columns + column] = map.at(map.across.nodes[column], map.down.nodes[row]);
            }
        }
        Self { values, map, columns, rows, threshold, crossed: vec![false; columns * rows] }
    }

    fn value(&self, column: usize, row: usize) -> f32 {
        self.values[row * self.columns + column]
    }

    fn inside(&self, column: usize, row: usize) -> bool {
        self.value(column, row) >= self.threshold
    }

    /// From outside to inside, left to right, and not yet part of a line.
    fn is_start(&self, column: usize, row: usize) -> bool {
        !self.crossed[row * self.columns + column] && !self.inside(column, row) && self.inside(column + 1, row)
    }

    /// Follows one line from the edge right of (column, row) until it closes, the inside always to its left.
    fn trace(&mut self, column: usize, row: usize) -> Contour {
        let (mut x, mut y, mut from) = (column, row, Side::Top);
        let mut points = Vec::new();
        loop {
            let to = self.exit(x, y, from);
            match to {
                Side::Top => self.crossed[y * self.columns + x] = true,
                Side::Bottom => self.crossed[(y + 1) * self.columns + x] = true,
                Side::Left | Side::Right => {}
            }
            points.push(self.crossing(x, y, to));
            // The outer ring is outside, so a line never leaves it.
            (x, y, from) = match to {
                Side::Top => (x, y - 1, Side::Bottom),
                Side::Right => (x + 1, y, Side::Left),
                Side::Bottom => (x, y + 1, Side::Top),
                Side::Left => (x - 1, y, Side::Right),
            };
            if (x, y, from) == (column, row, Side::Top) {
                break;
            }
        }
        let wide: Vec<[f64; 2]> = points.iter().map(|[x, y]| [f64::from(*x), f64::from(*y)]).collect();
        Contour { area: -area(&wide), points }
    }

    /// Where a line that comes into the cell right and below of (x, y) leaves it.
    fn exit(&self, x: usize, y: usize, from: Side) -> Side {
        let corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)];
        let [a, b, c, d] = corners.map(|(x, y)| self.inside(x, y));
        let sides = [(Side::Top, a != b), (Side::Right, b != c), (Side::Bottom, c != d), (Side::Left, d != a)];
        if sides.iter().all(|(_, crossed)| *crossed) {
            // Two lines in one cell: each goes round a corner that is not joined to its opposite.
            let cut_off_a = self.joined_across(corners.map(|(x, y)| self.value(x, y))) != a;
            return match (from, cut_off_a) {
                (Side::Top, true) | (Side::Bottom, false) => Side::Left,
                (Side::Top, false) | (Side::Bottom, true) => Side::Right,
                (Side::Left, true) | (Side::Right, false) => Side::Top,
                (Side::Left, false) | (Side::Right, true) => Side::Bottom,
            };
        }
        // Of the two sides that are crossed, the other one.
        sides.iter().find(|(side, crossed)| *crossed && *side != from).map_or(from, |(side, _)| *side)
    }

    /// Whether the saddle of the bilinear surface over four corners lies inside.
    fn joined_across(&self, [a, b, c, d]: [f32; 4]) -> bool {
        let [a, b, c, d] = [a, b, c, d].map(f64::from);
        // a and c are on one side of the threshold, b and d on the other: the sum is not 0.
        (a * c - b * d) / (a + c - b - d) >= f64::from(self.threshold)
    }

    /// The point where a side crosses the threshold.
    fn crossing(&self, x: usize, y: usize, side: Side) -> [f32; 2] {
        let (from, to) = match side {
            Side::Top => ((x, y), (x + 1, y)),
            Side::Right => ((x + 1, y), (x + 1, y + 1)),
            Side::Bottom => ((x, y + 1), (x + 1, y + 1)),
            Side::Left => ((x, y), (x, y + 1)),
        };
        let (low, high) = (self.value(from.0, from.1), self.value(to.0, to.1));
        let share = ((self.threshold - low) / (high - low)).clamp(0.0, 1.0);
        let between = |low: f32, high: f32| low + (high - low) * share;
        [
            between(self.map.across.nodes[from.0], self.map.across.nodes[to.0]),
            between(self.map.down.nodes[from.1], self.map.down.nodes[to.1]),
        ]
    }
}

/// Signed area of a closed outline; positive where it turns from x to y.
pub(super) fn area(points: &[[f64; 2]]) -> f64 {
    let next = points.iter().cycle().skip(1);
    points.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f64>() / 2.0
}

/// The same outline with at most [`OUTLINE_POINTS_MAX`] points: the one that is farthest off is added first, until none
/// is off by more than half a pixel, or a hundredth of a small outline. None where nothing is enclosed.
///
/// Source: the splitting of Ramer (1972) and of Douglas and Peucker (1973), best first.
pub(super) fn simplified(dense: &[[f64; 2]]) -> Option<Vec<[f32; 2]>> {
    let every = dense.len().div_ceil(DENSE_POINTS_MAX).max(1);
    let mut points: Vec<[f64; 2]> = dense.iter().copied().step_by(every).collect();
    points.dedup();
    let first = *points.first()?;
    let distance = |point: &[f64; 2]| (point[0] - first[0]).hypot(point[1] - first[1]);
    let far = (0..points.len()).max_by(|a, b| distance(&points[*a]).total_cmp(&distance(&points[*b])))?;
    let off_max = (distance(&points[far]) / 100.0).clamp(0.05, 0.5);
    // Back to the first point at the end, so that the second half is a stretch like any other.
    points.push(first);
    let mut stretches = vec![Stretch::new(&points, 0, far), Stretch::new(&points, far, points.len() - 1)];
    while stretches.len() < OUTLINE_POINTS_MAX {
        let worst = (0..stretches.len()).max_by(|a, b| stretches[*a].off.total_cmp(&stretches[*b].off))?;
        let Stretch { from, to, farthest, off } = stretches[worst];
        if off <= off_max {
            break;
        }
        stretches[worst] = Stretch::new(&points, from, farthest);
        stretches.push(Stretch::new(&points, farthest, to));
    }
    stretches.sort_by_key(|stretch| stretch.from);
    let kept: Vec<[f64; 2]> = stretches.iter().map(|stretch| points[stretch.from]).collect();
    if kept.len() < 3 || area(&kept) == 0.0 {
        return None;
    }
    Some(kept.into_iter().map(|[x, y]| [x as f32, y as f32]).collect())
}

/// A part of an outline that a straight line stands for.
struct Stretch {
    from: usize,
    to: usize,
    /// The point in between that is farthest off.
    farthest: usize,
    /// How far.
    off: f64,
}

impl Stretch {
    fn new(points: &[[f64; 2]], from: usize, to: usize) -> Self {
        let (a, b) = (points[from], points[to]);
        let (mut farthest, mut off) = (from, 0.0);
        for (between, point) in points.iter().enumerate().take(to).skip(from + 1) {
            let distance = distance_to(*point, a, b);
            if distance > off {
                (farthest, off) = (between, distance);
            }
        }
        Self { from, to, farthest, off }
    }
}

/// Distance of a point from a line with two ends.
fn distance_to(point: [f64; 2], a: [f64; 2], b: [f64; 2]) -> f64 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let length2 = dx * dx + dy * dy;
    let along = if length2 > 0.0 { ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / length2 } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    (point[0] - a[0] - along * dx).hypot(point[1] - a[1] - along * dy)
}
