"""Makes the samples that no wheel holds ready to send.

In: a folder with retina.jpg and slide.svs. Out, in the same folder: retina-blurred-dark.jpg, tissue.dcm, slide.dcm,
thyroid-synthetic.dcm. Promise: the same input gives the same pixels; patients are invented.
"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, ExplicitVRLittleEndian, generate_uid

JPEG_QUALITY = 92
TILE_PX = 256
SLIDE_MM_PER_PX = 0.000499
"""Of the Aperio file's own description: 0.499 micrometres a pixel."""


def object_of(kind: str, sop_class: str, modality: str, patient: str) -> Dataset:
    """The attributes that every object here has; UIDs follow from `kind`."""
    uid = lambda part: generate_uid(prefix="2.25.", entropy_srcs=["fovea-sample", kind, part])
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("instance"), uid("study"), uid("series")
    ds.PatientName, ds.PatientID = f"Sample^{patient}", f"SAMPLE-{patient.upper()}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyDate = ds.ContentDate = "20260105"
    ds.StudyTime = ds.ContentTime = "101500"
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.Modality, ds.Manufacturer = modality, "Fovea sample"
    ds.SeriesNumber = ds.InstanceNumber = 1
    return ds


def colour(ds: Dataset, width: int, height: int, frames: list[bytes]) -> None:
    """Pixel attributes of 8-bit JPEG frames."""
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    ds.Rows, ds.Columns = height, width
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.LossyImageCompression, ds.BurnedInAnnotation = "01", "NO"
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def write(ds: Dataset, path: Path, syntax: str) -> None:
    """A Part 10 file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)


def jpeg(picture: Image.Image) -> bytes:
    """Baseline JPEG."""
    from io import BytesIO

    out = BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def degraded(folder: Path) -> None:
    """A blur of 1 % of the width and a quarter of the light: what a moved handheld with a weak flash gives."""
    photograph = Image.open(folder / "retina.jpg").convert("RGB")
    blurred = photograph.filter(ImageFilter.GaussianBlur(photograph.width / 100))
    ImageEnhance.Brightness(blurred).enhance(0.25).save(folder / "retina-blurred-dark.jpg", quality=92)


def tissue(slide: Image.Image, folder: Path) -> None:
    """One photomicrograph: 768 x 768 px of stained tissue, as a microscope's camera sends it."""
    field = slide.crop((750, 1550, 1518, 2318))
    ds = object_of("tissue", "1.2.840.10008.5.1.4.1.1.77.1.2", "GM", "Tissue")
    ds.PixelSpacing = [SLIDE_MM_PER_PX, SLIDE_MM_PER_PX]
    colour(ds, field.width, field.height, [jpeg(field)])
    write(ds, folder / "tissue.dcm", JPEGBaseline8Bit)


def whole_slide(slide: Image.Image, folder: Path) -> None:
    """The whole slide, TILED_FULL."""
    columns, rows = math.ceil(slide.width / TILE_PX), math.ceil(slide.height / TILE_PX)
    frames = []
    for row in range(rows):
        for column in range(columns):
            tile = Image.new("RGB", (TILE_PX, TILE_PX), (243, 243, 243))
            left, top = column * TILE_PX, row * TILE_PX
            tile.paste(slide.crop((left, top, min(left + TILE_PX, slide.width), min(top + TILE_PX, slide.height))))
            frames.append(jpeg(tile))
    ds = object_of("slide", "1.2.840.10008.5.1.4.1.1.77.1.6", "SM", "Slide")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = len(frames)
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = slide.width, slide.height
    ds.TotalPixelMatrixFocalPlanes = ds.NumberOfOpticalPaths = 1
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = slide.width * SLIDE_MM_PER_PX, slide.height * SLIDE_MM_PER_PX
    ds.ImagedVolumeDepth, ds.ContainerIdentifier = 0.001, "SAMPLE"
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SLIDE_MM_PER_PX, SLIDE_MM_PER_PX], 0.001
    groups.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [groups]
    colour(ds, TILE_PX, TILE_PX, frames)
    write(ds, folder / "slide.dcm", JPEGBaseline8Bit)


def thyroid(folder: Path) -> None:
    """A drawn ultrasound frame: speckle with a dark oval, calibrated at 0.1 mm a pixel. No patient was scanned."""
    width = height = 400
    rng = random.Random(20260411)
    grain = Image.frombytes("L", (width, height), rng.randbytes(width * height)).filter(ImageFilter.GaussianBlur(0.9))
    layers = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(layers)
    for top, bottom, level in ((0, 45, 105), (45, 62, 210), (62, 118, 85), (118, 315, 135), (315, height, 70)):
        draw.rectangle((0, top, width, bottom), fill=level)
    # An oval of 16 x 13 mm with an uneven edge.
    outline = [
        (
            195 + math.cos(turn / 60 * math.tau) * (80 + 4 * math.sin(turn / 60 * 3 * math.tau)),
            205 + math.sin(turn / 60 * math.tau) * (65 + 3 * math.cos(turn / 60 * 2 * math.tau)),
        )
        for turn in range(60)
    ]
    draw.polygon(outline, fill=48)
    layers = layers.filter(ImageFilter.GaussianBlur(2))
    pixels = bytes(
        max(0, min(255, round(level * (0.15 + 0.0068 * speck)))) for level, speck in zip(layers.tobytes(), grain.tobytes())
    )
    ds = object_of("thyroid", "1.2.840.10008.5.1.4.1.1.6.1", "US", "Thyroid")
    ds.BodyPartExamined, ds.BurnedInAnnotation = "THYROID", "NO"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = height, width
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = width - 1, height - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    ds.SequenceOfUltrasoundRegions = [region]
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB"
    write(ds, folder / "thyroid-synthetic.dcm", ExplicitVRLittleEndian)


def main() -> None:
    """Makes all."""
    folder = Path(sys.argv[1])
    degraded(folder)
    slide = Image.open(folder / "slide.svs").convert("RGB")
    tissue(slide, folder)
    whole_slide(slide, folder)
    thyroid(folder)


if __name__ == "__main__":
    main()
