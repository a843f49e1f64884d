//! A circle through points of which up to half may lie elsewhere.

use std::ops::{Range, RangeInclusive};

/// A point in pixels of the frame; (0, 0) is the frame's upper left corner, not the middle of its first pixel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A circle in pixels of the frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Circle {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) radius: f64,
}

/// A circle and how well it is borne out.
pub(crate) struct Fit {
    pub(crate) circle: Circle,
    /// Points that lie on it.
    pub(crate) points_on: usize,
    /// Of its 36 directions, those in which a point lies on it.
    pub(crate) directions: usize,
}

/// Samples of three points that are tried. With half the points astray one in eight samples is good, so the chance to meet
/// none in 200 is below 1e-11.
const SAMPLES: usize = 200;
/// How far from the circle a point may lie, as a share of the radius, beside the slack in pixels.
const RADIUS_SLACK: f64 = 0.012;

impl Circle {
    pub(crate) fn contains(&self, point: Point) -> bool {
        self.distance_square(point) <= self.radius * self.radius
    }

    fn distance_square(&self, point: Point) -> f64 {
        let (x, y) = (point.x - self.x, point.y - self.y);
        x * x + y * y
    }

    /// The squares of the least and greatest distance from the centre at which a point lies on the circle: squares,
    /// because this is asked some hundred thousand times for each picture.
    fn band(&self, slack_px: f64) -> RangeInclusive<f64> {
        let slack = slack_px + RADIUS_SLACK * self.radius;
        let inner = (self.radius - slack).max(0.0);
        inner * inner..=(self.radius + slack) * (self.radius + slack)
    }

    /// The points that lie on it.
    fn on(&self, points: &[Point], slack_px: f64) -> impl Iterator<Item = Point> {
        let band = self.band(slack_px);
        points.iter().copied().filter(move |point| band.contains(&self.distance_square(*point)))
    }

    fn through(a: Point, b: Point, c: Point) -> Option<Self> {
        let (bx, by, cx, cy) = (b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y);
        let cross = 2.0 * (bx * cy - by * cx);
        if cross.abs() < 1e-9 {
            return None;
        }
        let (b_square, c_square) = (bx * bx + by * by, cx * cx + cy * cy);
        let x = (cy * b_square - by * c_square) / cross;
        let y = (bx * c_square - cx * b_square) / cross;
        Some(Self { x: a.x + x, y: a.y + y, radius: x.hypot(y) })
    }

    /// Least squares of `x^2 + y^2 = 2 a x + 2 b y + c` about the mean of the points (Kasa's fit).
    fn least_squares(points: &[Point]) -> Option<Self> {
        let count = points.len() as f64;
        let mean_x = points.iter().map(|point| point.x).sum::<f64>() / count;
        let mean_y = points.iter().map(|point| point.y).sum::<f64>() / count;
        let (mut xx, mut yy, mut xy, mut xz, mut yz, mut z) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for point in points {
            let (x, y) = (point.x - mean_x, point.y - mean_y);
            let square = x * x + y * y;
            xx += x * x;
            yy += y * y;
            xy += x * y;
            xz += x * square;
            yz += y * square;
            z += square;
        }
        let determinant = 2.0 * (xx * yy - xy * xy);
        if points.len() < 3 || determinant.abs() < 1e-9 {
            return None;
        }
        let x = (xz * yy - yz * xy) / determinant;
        let y = (yz * xx - xz * xy) / determinant;
        Some(Self { x: mean_x + x, y: mean_y + y, radius: (x * x + y * y + z / count).sqrt() })
    }
}

/// The circle on which most points lie, refined on those. The same points always give the same circle.
pub(crate) fn fit(points: &[Point], radius: Range<f64>, slack_px: f64) -> Option<Fit> {
    let mut draw = Draw(0x2545_F491_4F6C_DD1D);
    let mut best: Option<(usize, Circle)> = None;
    for _ in 0..SAMPLES {
        let (a, b, c) = (draw.one_of(points)?, draw.one_of(points)?, draw.one_of(points)?);
        let Some(circle) = Circle::through(a, b, c).filter(|circle| radius.contains(&circle.radius)) else { continue };
        let on = circle.on(points, slack_px).count();
        if best.is_none_or(|(most, _)| on > most) {
            best = Some((on, circle));
        }
    }
    let mut circle = best?.1;
    for _ in 0..5 {
        let on: Vec<Point> = circle.on(points, slack_px).collect();
        circle = Circle::least_squares(&on).filter(|refined| radius.contains(&refined.radius))?;
    }
    let mut seen = [false; 36];
    for point in circle.on(points, slack_px) {
        let turn = (point.y - circle.y).atan2(point.x - circle.x) / std::f64::consts::TAU + 0.5;
        seen[(turn * 36.0) as usize % 36] = true;
    }
    Some(Fit {
        circle,
        points_on: circle.on(points, slack_px).count(),
        directions: seen.iter().filter(|seen| **seen).count(),
    })
}

/// Xorshift with a fixed start: samples that look random and are always the same.
struct Draw(u64);

impl Draw {
    fn one_of(&mut self, points: &[Point]) -> Option<Point> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if points.is_empty() {
            return None;
        }
        // The remainder is below the length, so it fits.
        points.get(((self.0 >> 16) % points.len() as u64) as usize).copied()
    }
}
