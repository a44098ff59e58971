"""The sample brand's products: real product types and package sizes, the brand is invented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

# Product types of the study that a reader knows at sight; every third is kept unseen for the evaluation,
# and so are all of the second list: a small gain over a good prompt takes many cases to tell from chance.
TYPES = """
SHREDDED CHEESE, POTATO CHIPS, KIDS CEREAL, TOILET TISSUE, CONDENSED SOUP, GROUND COFFEE, ADULT CEREAL, POURABLE SALAD DRESSINGS,
SPRING WATER, CREAM CHEESE, COTTAGE CHEESE, PEANUT BUTTER, BUTTER, PRETZELS, TOASTER PASTRIES, FRZN FRENCH FRIES, GRANOLA BARS,
SNACK CRACKERS, STRING CHEESE, HAMBURGER BUNS, SOUR CREAMS, FRUIT SNACKS, CEREAL BARS, INSTANT OATMEAL, HOT DOG BUNS, CATSUP, BAGELS,
PICKLES, SKILLET DINNERS, SANDWICH COOKIES, BBQ SAUCE, FABRIC SOFTENER LIQUID, WATER ICE, SPAGHETTI DRY, NOODLES DRY, OLIVE OIL,
POWDER LAUNDRY DETERGENT, CORN CHIPS, LIQUID DISH DETERGENT, CHOCOLATE MILK, ICE CREAM SANDWICHES, BROTH, PLASTIC TRASH BAGS,
MACARONI DRY, FROSTING, FROZEN FRUIT, FABRIC SOFTENER SHEETS, REFRIG DIPS, LIQUID BLEACH, STUFFING MIXES, PAPER NAPKINS, TEA SWEETENED,
LAYER CAKE MIX, BROWNIE MIX, RYE BREADS, GRATED CHEESE, REFRIGERATED PUDDING, SWEETENERS, CONES, ORGANIC SALAD MIX
"""
UNSEEN_TYPES = """
SHAMPOO, TOOTHPASTE, BODY WASH, BAR SOAP, RAISINS, GRAHAM CRACKERS, HOT SAUCE, TOMATO SAUCE, JELLY, CHARCOAL, PANCAKE MIXES, GREEN OLIVES,
APPLE SAUCE, MEAT SNACKS, FREEZER BAGS, SANDWICH BAGS, FOOD STORAGE BAGS, CLEANING WIPES, PLASTIC CUPS, FOAM PLATES, BASIC PAPER PLATES,
BABY WIPES, BABY DIAPERS, BAKING NUTS, CHEWING GUM, SPECIALTY COOKIES, COOKING SPRAYS, DRY SOUP, GROUND TURKEY, CORN DOGS, BURRITOS,
BLUEBERRIES, STRAWBERRIES, STANDARD OATMEAL, CANNED MILK, MICROWAVABLE SOUPS, FROZEN CREAM PIES, BAGGED CHEESE SNACKS, ENERGY DRINK,
MULTI-PACK CRACKERS, MULTI-PACK COOKIES, SANDWICH BUNS, SUGAR, CHOCOLATE COVERED COOKIES, PUDDINGS DRY, PREMIUM BREAD,
LIQUID LAUNDRY DETERGENTS, FRZN WHIPPED TOPPING, FRZN MEAT ALTERNATIVES, HAND AND BODY LOTIONS, PEACHES, MEXICAN SEASONING MIXES,
SCOOP LITTER, FRUIT BOWL AND CUPS, TUNA, SPICES & SEASONINGS
"""
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(OZ|CT|LB|GA|LOAD|LOADS|GAL)$")
UNITS = {"OZ": "oz", "CT": "count", "LB": "lb", "GA": "gal", "GAL": "gal", "LOAD": "loads", "LOADS": "loads"}
WORDS = {"frzn": "frozen", "refrig": "refrigerated", "bbq": "BBQ"}


@dataclass(frozen=True)
class Product:
    sku: str
    name: str  # "Peanut butter"
    size: str  # "18 oz"
    category: str
    department: str
    unseen: bool  # kept from training, for the evaluation


def catalogue(data_dir: Path) -> list[Product]:
    """The products, by sales in the study; the same list each time."""
    shown, kept = ([name.strip() for name in some.replace("\n", " ").split(",")] for some in (TYPES, UNSEEN_TYPES))
    wanted = [*shown, *kept]
    sales = (
        pl.scan_parquet(data_dir / "transactions.parquet").group_by("product_id").agg(sales=pl.col("sales_value").sum())
    )
    rows = (
        pl.scan_parquet(data_dir / "products.parquet")
        .filter(pl.col("product_type").is_in(wanted), pl.col("package_size").is_not_null())
        .join(sales, on="product_id")
        .sort("sales", "product_id", descending=[True, False])
        .collect()
    )
    best: dict[str, dict[str, object]] = {}
    for row in rows.iter_rows(named=True):
        if row["product_type"] not in best and SIZE.search(row["package_size"].strip()):
            best[row["product_type"]] = row
    first, second = ([best[name] for name in some if name in best] for some in (shown, kept))
    return [
        *(_product(row, unseen=index % 3 == 2) for index, row in enumerate(first)),
        *(_product(row, unseen=True) for row in second),
    ]


def _product(row: dict[str, object], *, unseen: bool) -> Product:
    words = [WORDS.get(word.lower(), word.lower()) for word in str(row["product_type"]).split()]
    if words[-1] == "dry":
        words = words[:-1]
    name = " ".join(words)
    size = SIZE.search(str(row["package_size"]).strip())
    assert size is not None  # noqa: S101  # chosen for having one
    number = size[1].removesuffix(".0")
    return Product(
        sku=str(row["product_id"]),
        name=name[0].upper() + name[1:],
        size=f"{number} {UNITS[size[2]]}",
        category=str(row["product_category"]).capitalize(),
        department=str(row["department"]).capitalize(),
        unseen=unseen,
    )
