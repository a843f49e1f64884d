"""Enlarges a photograph to the size that a fundus camera delivers, so that a bench decodes as many pixels as a clinic's box does.

In:  one JSON object as the only argument: source, target (JPEG files); width, height (pixels of the target); quality (1 to 95).
Out: the picture scaled to fit and set on black, as baseline JPEG with 4:2:2 colour; one JSON object: bytes.
"""

import json
import os
import sys

from PIL import Image

asked = json.loads(sys.argv[1])
width, height = asked["width"], asked["height"]
source = Image.open(asked["source"]).convert("RGB")
scale = min(width / source.width, height / source.height)
inner = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.LANCZOS)
picture = Image.new("RGB", (width, height))
picture.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
picture.save(asked["target"], "JPEG", quality=asked["quality"], subsampling="4:2:2")
print(json.dumps({"bytes": os.path.getsize(asked["target"])}))
