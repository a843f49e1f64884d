"""What the bundle says of itself: the manifest's content and the card, from the results.

In: results.json's content. Out: nested tables for common.manifest; the card's text.
Promise: thresholds, temperatures and figures come from the results; words for people stand here and in the template.
"""

from __future__ import annotations

from pathlib import Path

from network import SIDE_PX  # first: it knows where `common` lies

from common import backbone, card, manifest
from degrade import KINDS, REASONS

REASON_WORDS = {
    "out_of_focus": ("the picture is out of focus", "Hold still, refocus and take it again"),
    "too_dark": ("the picture is too dark", "Raise the flash or the gain and take it again"),
    "too_bright": ("the picture is too bright", "Lower the flash or the gain and take it again"),
    "hazy": (
        "the picture is hazy",
        "Clean the lens, let the patient blink and take it again; if it stays hazy, note a possible cataract",
    ),
    "field_cut": (
        "too much of the retina is cut off or in shadow",
        "Centre the pupil, darken the room so that it widens, and take it again",
    ),
    "obstructed": (
        "a lid, lashes, a reflex or dirt covers part of the retina",
        "Lift the lid, keep lashes away, clean the lens and take it again",
    ),
    "not_a_retina": (
        "this does not look like a retina",
        "Check that the scope looks into the eye, centre the pupil and take it again",
    ),
}
"""Reason -> (what is wrong, what to do). All are ungradable: each is asked of a picture that came from an eye scope,
and another try can help."""


GRADE_WORDS = ("none", "mild", "moderate", "severe", "proliferative")


def outputs(results: dict) -> list[dict]:
    """`[[networks.outputs]]`."""
    referable, grade = results["referable"], results["grade"]
    code = {"scheme": "99FOVEA"}
    return [
        {
            "tensor": "referable",
            "kind": "binary_logit",
            "label": "referable diabetic retinopathy",
            "#": "Not SNOMED CT's Diabetic retinopathy: a mild one is not referable, and absent would deny it.",
            "code": {**code, "value": "referable-dr", "meaning": "Referable diabetic retinopathy"},
            "temperature": referable["temperature"],
            "clear_below": referable["clear_below"],
            "significant_from": referable["significant_from"],
        },
        {
            "tensor": "grade",
            "kind": "ordinal_logits",
            "label": "diabetic retinopathy grade",
            "code": {**code, "value": "dr-grade", "meaning": "Diabetic retinopathy grade"},
            "temperature": grade["temperature"],
            "levels": list(GRADE_WORDS),
            "thresholds": grade["thresholds"],
        },
        {
            "tensor": "lesions",
            "kind": "heat_logits",
            "label": "signs of retinopathy",
            "threshold": results["lesions_int8"]["threshold"],
            "regions_max": 8,
        },
        {
            "tensor": "gate",
            "kind": "gate_logits",
            "temperature": results["gate"]["temperature"],
            "threshold": results["gate"]["threshold"],
            "reasons": [
                {"code": r, "text": REASON_WORDS[r][0], "advice": REASON_WORDS[r][1], "outcome": "ungradable"}
                for r in REASONS
            ],
        },
    ]


def content(results: dict, golden: dict, outputs_: list[dict], version: str) -> dict:
    """The manifest without `[files]`."""
    return {
        "#": "What this model wants to see, what its answers mean, by what it proves itself. Written by its recipe.",
        "schema": 2,
        "id": "dr-screening",
        "version": version,
        "task": "diabetic_retinopathy_screening",
        "description": "Referable diabetic retinopathy, its grade and where its signs lie, in a colour fundus "
        "photograph. Research use only.",
        "licence": "Apache-2.0",
        "eligible": {
            "#": "Ophthalmic Photography 8 Bit, VL Photographic, Secondary Capture.",
            "sop_classes": manifest.RETINA_SOP_CLASSES,
            "modalities": ["OP", "XC", "OT"],
            "body_parts": ["EYE", "RETINA"],
            "photometrics": manifest.COLOUR_PHOTOMETRICS,
            "lateralities": [],
            "min_rows_px": 400,
            "min_columns_px": 400,
        },
        "labels": {"meaning": "DR grade 0 to 4 (2 or more is referable), or 0/1 referable where only 0 and 1 occur"},
        "algorithm": {"name": "Fovea dr-screening", "family": manifest.ALGORITHM_FAMILY},
        "limits": {"ops_max": 1500},
        "networks": [
            {
                "name": "retina",
                "input": {
                    "tensor": "image",
                    "width_px": SIDE_PX,
                    "height_px": SIDE_PX,
                    "channels": "rgb",
                    "mean": backbone.MEAN,
                    "std": backbone.STD,
                    "roi": "retina_disc",
                },
                "quality": {
                    "#": "Past what any clean photograph shows: the gate decides the rest.",
                    **results["quality"]["limits"],
                },
                "golden": golden,
                "outputs": outputs_,
            }
        ],
    }


def card_text(results: dict) -> str:
    """The card, every figure from `results`."""
    referable, gate = results["referable"], results["gate"]
    template = Path(__file__).resolve().parent / "card.template.md"
    limits = ", ".join(f"{name} {value:g}" for name, value in results["quality"]["limits"].items())
    return card.fill(
        template,
        results,
        prevalence_pc=f"{100 * referable['referable'] / referable['photographs']:.0f}",
        failures=(template.parent / "failures.md").read_text().strip(),
        minutes=f"{results['training']['core_minutes']:.0f}",
        training_peak_rate=str(results["training"]["peak_rate"]),
        clear_below=f"{referable['clear_below']:.2f}",
        significant_from=f"{referable['significant_from']:.2f}",
        gate_threshold=f"{gate['threshold']:.2f}",
        limits=limits,
        grade_rows=_confusion(results),
        subgroup_rows=_subgroups(results),
        degraded_rows=_kinds(gate, True, results["quality"]["finder_or_limits_refuse"]),
        foreign_rows=_kinds(gate, False, {}),
        map_by_grade=", ".join(f"{100 * v:.0f}" for v in results["lesions_int8"]["lit_by_grade"].values()),
        production=_production(results["production"]),
        fold_aucs=", ".join(f"{auc:.3f}" for auc in referable["auc_by_fold"]),
    )


def _production(one: dict | None) -> str:
    if one is None:
        return "not run"
    auc = f"AUC {one['auc']:.3f} ({one['auc_95'][0]:.3f} to {one['auc_95'][1]:.3f})"
    return (
        f"{auc}, kappa {one['kappa']:.3f} with the served thresholds, {one['ungradable']} of "
        f"{one['answered'] + one['ungradable']} ungradable; probabilities differ from Python's by "
        f"{one['delta_mean']:.3f} on average, {one['delta_max']:.3f} at most"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _confusion(results: dict) -> str:
    rows = results["grade"]["int8"]["confusion"]
    head = ["grade of the data set", *(f"said {grade}" for grade in range(len(rows)))]
    named = zip(GRADE_WORDS, rows, strict=True)
    return card.table(head, [[f"{i} {word}", *row] for i, (word, row) in enumerate(named)])


def _subgroups(results: dict) -> str:
    rows = []
    for name, groups in (("grade", results["subgroups"]["grade"]), ("oedema risk", results["subgroups"]["dme_risk"])):
        for value, one in groups.items():
            shares = [_percent(one[band]) for band in ("clear", "ambiguous", "significant")]
            auc = "-" if one["auc"] is None else f"{one['auc']:.3f}"
            rows.append([f"{name} {value}", one["photographs"], *shares, auc, f"{one['mean_grade_error']:+.2f}"])
    head = ["subgroup", "photographs", "clear", "ambiguous", "significant", "AUC", "mean error of the grade"]
    return card.table(head, rows)


def _kinds(gate: dict, spoilt: bool, limits: dict[str, float]) -> str:
    rows = []
    for kind, one in gate["fp32"]["kinds"].items():
        if (kind in KINDS) == spoilt:
            auc = "-" if one["auc"] is None else f"{one['auc']:.3f}"
            shares = [_percent(one["no_disc_found"]), _percent(one["refused"])]
            more = [_percent(one["right_reason"]), _percent(limits[kind])] if spoilt else []
            rows.append([kind.replace("_", " "), one["pictures"], *shares, auc, *more])
    head = ["kind", "pictures", "no disc found", "refused", "AUC of the gate"]
    return card.table([*head, "right reason", "refused without the gate"] if spoilt else head, rows)
