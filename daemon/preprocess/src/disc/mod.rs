//! Finds the bright disc of the retina on its dark surround.
//!
//! In: an 8-bit picture. Out: the fitted circle and the bright region inside it.
//! Promise: works on a copy of at most 256 x 256 pixels, so its time does not grow with disorder in the picture; discs may
//! be off centre, cropped tight, or cut by the frame or by black bars. What is no disc is an error, never a guess.

mod circle;

pub(crate) use circle::{Circle, Point};

use crate::PreprocessError;
use crate::mask::Mask;
use fovea_kernels::Isa;
use fovea_kernels::area::{Image, Window, resize_u8};

/// Longest side of the copy that is searched, in pixels.
const SEARCH_SIDE_PX: u32 = 256;
/// Side of the corner patches that show the surround, as a share of the shorter side: even a disc that touches all four
/// sides leaves them free.
const CORNER_SHARE: f64 = 0.06;
/// The disc begins at this share of the way from the surround to the bright part: low, since its rim is often in shadow.
const RIM_SHARE: f64 = 0.12;
/// Least distance between surround and bright part, levels of 255: below it there is nothing to see.
const CONTRAST_MIN: f64 = 8.0;
/// Least share of the frame that the disc covers.
const AREA_SHARE_MIN: f64 = 0.05;
/// Least share of the rim's points that lie on the circle; the rest may be notches, text and straight cuts.
const RIM_ON_CIRCLE_MIN: f64 = 0.45;
/// Least number of the circle's 36 directions in which its rim is seen.
const DIRECTIONS_MIN: usize = 12;
/// Least share of the bright region that lies inside the circle.
const REGION_INSIDE_MIN: f64 = 0.9;
/// Least share of the circle (inside the frame) that is bright region.
const CIRCLE_FILLED_MIN: f64 = 0.5;

/// The disc that was found, in pixels of the frame.
pub(crate) struct Disc {
    pub(crate) circle: Circle,
    region: Region,
    /// See [`crate::measures::FIELD`].
    pub(crate) field: f64,
}

impl Disc {
    /// True where a point of the frame belongs to the disc: inside the circle and inside the bright region.
    pub(crate) fn contains(&self, point: Point) -> bool {
        self.circle.contains(point) && self.region.contains(point)
    }
}

/// The picture as it is searched: the brightest channel of each pixel.
struct Small {
    width: usize,
    height: usize,
    values: Vec<u8>,
    /// Frame pixels for one pixel here.
    step: Point,
}

/// Finds the disc.
///
/// # Errors
/// [`PreprocessError::NoRetinaFound`], and [`PreprocessError::Resize`] for a frame larger than the kernels take.
pub(crate) fn find(isa: Isa, image: &Image<'_>, width_px: u32, height_px: u32) -> Result<Disc, PreprocessError> {
    let missing = |why| PreprocessError::NoRetinaFound { why };
    let small = shrink(isa, image, width_px, height_px)?;
    let (surround, threshold) = threshold(&small).ok_or(missing("no bright part on a dark surround"))?;
    let bright = Mask::from_fn(small.width, small.height, |x, y| f64::from(small.at(x, y)) > threshold);
    let region = Region::around(&bright.majority().largest_component(), small.step);
    let rim = rim(&small, &region, surround);
    let least_radius = (AREA_SHARE_MIN / std::f64::consts::PI * f64::from(width_px) * f64::from(height_px)).sqrt();
    let most_radius = f64::from(width_px.max(height_px));
    // Half a pixel of the copy, and the unevenness of real rims.
    let slack_px = 0.75 * small.step.x.max(small.step.y);
    let fit =
        circle::fit(&rim, least_radius..most_radius, slack_px).ok_or(missing("no circle fits the bright part"))?;
    if (fit.points_on as f64) < RIM_ON_CIRCLE_MIN * rim.len() as f64 || fit.directions < DIRECTIONS_MIN {
        return Err(missing("the rim of the bright part is no circle"));
    }
    let shares = Shares::of(&small, &region, &fit.circle);
    if shares.region_inside < REGION_INSIDE_MIN || shares.circle_filled < CIRCLE_FILLED_MIN {
        return Err(missing("the bright part does not fill its circle"));
    }
    Ok(Disc { circle: fit.circle, region, field: shares.field })
}

impl Small {
    fn at(&self, x: usize, y: usize) -> u8 {
        self.values[y * self.width + x]
    }

    /// The frame's coordinates of the middle of a pixel.
    fn middle(&self, x: usize, y: usize) -> Point {
        Point { x: (x as f64 + 0.5) * self.step.x, y: (y as f64 + 0.5) * self.step.y }
    }
}

fn shrink(isa: Isa, image: &Image<'_>, width_px: u32, height_px: u32) -> Result<Small, PreprocessError> {
    let longer = width_px.max(height_px);
    let side = |length: u32| {
        let scaled = u64::from(length) * u64::from(SEARCH_SIDE_PX.min(longer)) / u64::from(longer);
        // At most SEARCH_SIDE_PX, so it fits.
        (scaled as u32).max(1)
    };
    let (width, height) = (side(width_px), side(height_px));
    let channels = image.channels();
    let mut pixels = vec![0; (width * height) as usize * channels];
    let whole = Window { x_px: 0, y_px: 0, width_px, height_px };
    resize_u8(isa, image, whole, width, height, &mut pixels).map_err(|source| PreprocessError::Resize {
        width_px,
        height_px,
        source,
    })?;
    let values = pixels.chunks_exact(channels).map(|pixel| pixel.iter().copied().max().unwrap_or(0)).collect();
    let step = Point { x: f64::from(width_px) / f64::from(width), y: f64::from(height_px) / f64::from(height) };
    Ok(Small { width: width as usize, height: height as usize, values, step })
}

/// Level of the surround and the level above which a pixel is bright; none where the picture has no two such parts.
fn threshold(small: &Small) -> Option<(f64, f64)> {
    let side = ((small.width.min(small.height) as f64 * CORNER_SHARE).round() as usize).max(1);
    if small.width < 4 * side || small.height < 4 * side {
        return None;
    }
    let mut corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(right, low)| {
        let (x0, y0) = (right * (small.width - side), low * (small.height - side));
        let patch = (0..side * side).map(|at| small.at(x0 + at % side, y0 + at / side)).collect();
        level_and_spread(patch)
    });
    // The second darkest: one corner may be darker by chance, two may hold text or a marker.
    corners.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (surround, noise) = corners[1];
    let mut all = small.values.clone();
    // The disc covers at least a twentieth, so its brighter half begins above this rank.
    let rank = all.len() - 1 - (all.len() as f64 * AREA_SHARE_MIN / 2.0) as usize;
    let bright = f64::from(*all.select_nth_unstable(rank).1);
    let contrast = bright - surround;
    if contrast < CONTRAST_MIN {
        return None;
    }
    let rim = (RIM_SHARE * contrast).max(4.0 * noise).max(3.0);
    (rim < contrast / 2.0).then_some((surround, surround + rim))
}

/// Median and robust standard deviation.
fn level_and_spread(mut values: Vec<u8>) -> (f64, f64) {
    let middle = values.len() / 2;
    let level = *values.select_nth_unstable(middle).1;
    let mut distances: Vec<u8> = values.iter().map(|value| value.abs_diff(level)).collect();
    let spread = *distances.select_nth_unstable(middle).1;
    // 1.4826: from the median distance to the standard deviation of normal noise.
    (f64::from(level), 1.4826 * f64::from(spread))
}

/// A set without holes: what lies between its first and last pixel both in its row and in its column.
struct Region {
    rows: Vec<Option<(usize, usize)>>,
    columns: Vec<Option<(usize, usize)>>,
    step: Point,
}

impl Region {
    fn around(mask: &Mask, step: Point) -> Self {
        Self { rows: mask.row_spans(), columns: mask.column_spans(), step }
    }

    fn contains_pixel(&self, x: usize, y: usize) -> bool {
        let holds = |span: &Option<(usize, usize)>, at| span.is_some_and(|(first, last)| (first..=last).contains(&at));
        self.rows.get(y).is_some_and(|span| holds(span, x)) && self.columns.get(x).is_some_and(|span| holds(span, y))
    }

    fn contains(&self, point: Point) -> bool {
        point.x >= 0.0
            && point.y >= 0.0
            && self.contains_pixel((point.x / self.step.x) as usize, (point.y / self.step.y) as usize)
    }
}

/// Points of the region's outline, in frame pixels, without those where the frame itself cuts it.
fn rim(small: &Small, region: &Region, surround: f64) -> Vec<Point> {
    let mut points = Vec::new();
    // The outermost pixel is bright in part: by how much says where in it the rim runs.
    let covered = |outer: u8, inner: u8| {
        let full = f64::from(inner) - surround;
        if full <= 0.0 { 1.0 } else { ((f64::from(outer) - surround) / full).clamp(0.0, 1.0) }
    };
    for (y, span) in region.rows.iter().enumerate() {
        let Some((first, last)) = *span else { continue };
        let middle = (y as f64 + 0.5) * small.step.y;
        if first > 0 && first < last {
            let x = first as f64 + 1.0 - covered(small.at(first, y), small.at(first + 1, y));
            points.push(Point { x: x * small.step.x, y: middle });
        }
        if last + 1 < small.width && first < last {
            let x = last as f64 + covered(small.at(last, y), small.at(last - 1, y));
            points.push(Point { x: x * small.step.x, y: middle });
        }
    }
    for (x, span) in region.columns.iter().enumerate() {
        let Some((first, last)) = *span else { continue };
        let middle = (x as f64 + 0.5) * small.step.x;
        if first > 0 && first < last {
            let y = first as f64 + 1.0 - covered(small.at(x, first), small.at(x, first + 1));
            points.push(Point { x: middle, y: y * small.step.y });
        }
        if last + 1 < small.height && first < last {
            let y = last as f64 + covered(small.at(x, last), small.at(x, last - 1));
            points.push(Point { x: middle, y: y * small.step.y });
        }
    }
    points
}

/// How well region and circle cover each other.
struct Shares {
    region_inside: f64,
    circle_filled: f64,
    field: f64,
}

impl Shares {
    fn of(small: &Small, region: &Region, circle: &Circle) -> Self {
        let (mut in_region, mut in_circle, mut in_both) = (0_u32, 0_u32, 0_u32);
        for y in 0..small.height {
            for x in 0..small.width {
                let inside = circle.contains(small.middle(x, y));
                let bright = region.contains_pixel(x, y);
                in_circle += u32::from(inside);
                in_region += u32::from(bright);
                in_both += u32::from(inside && bright);
            }
        }
        let circle_area = std::f64::consts::PI * circle.radius * circle.radius / (small.step.x * small.step.y);
        let both = f64::from(in_both);
        Self {
            region_inside: both / f64::from(in_region.max(1)),
            circle_filled: both / f64::from(in_circle.max(1)),
            field: (both / circle_area).clamp(0.0, 1.0),
        }
    }
}
