"""Creative policy: may this text be published at this network, and if not, which rule, where, and what to do.

Rules are data (``retailers/policies/rules.yaml``, and versions kept in the console); this file knows
how to look. Three verdicts: a blocking finding blocks; where only evidence is missing the text needs
proof; a warning alone passes. A rule that turns on evidence is silent where evidence on file speaks
of the same thing.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from retailers.domain.folding import Folded, fold, visible_length
from rmn.lib.errors import BadInput

RULES = Path(__file__).resolve().parents[1] / "policies" / "rules.yaml"
FACTS = {
    "brand", "rival_brands", "evidence", "origin_evidence", "offer", "price_history_90d", "nutrition_per_100g",
    "campaign_end", "category",
}  # fmt: skip
RETAILERS = ("Amazon", "Walmart", "Kroger", "Costco", "Aldi", "Lidl", "Publix", "Meijer", "Albertsons", "Safeway", "Instacart", "Wegmans", "Walgreens", "CVS", "Tesco", "Sainsbury's", "Asda", "Morrisons", "Carrefour", "Rewe", "Edeka", "Whole Foods", "Trader Joe's", "Sam's Club", "Home Depot", "Best Buy", "eBay", "Temu", "Shein", "Dollar General", "Family Dollar", "Rite Aid", "H-E-B", "Food Lion", "Winn-Dixie", "Hy-Vee")  # fmt: skip
AMBIGUOUS = ("Target", "Giant", "Sprouts", "Lowe's", "Gap", "Boots", "Next", "Iceland", "Stop & Shop")
ACRONYMS = {"LAN", "WAN", "WLAN", "VPN", "WPA", "DSL", "SIM", "GSM", "LTE", "QHD", "FHD", "VGA", "DVI", "SATA", "NVME", "DDR", "PTFE", "HDPE", "UVC", "DEET", "CPR", "BMX", "MTB", "PPE", "MERV", "POE", "IOT", "AI", "GAN", "MDF", "CNC", "RC", "EV", "SLR", "DSLR", "LFP", "AGM", "IPS", "ANC", "NSAID", "EAA", "ALA", "GABA", "CLA", "BOGO", "USB", "HDMI", "LED", "LCD", "OLED", "UV", "UVA", "UVB", "SPF", "BPA", "GMO", "USA", "US", "UK", "EU", "USDA", "FDA", "DIY", "BBQ", "TV", "HD", "UHD", "GPS", "DNA", "RGB", "AC", "DC", "XL", "XXL", "XS", "MCT", "CBD", "DHA", "EPA", "BCAA", "IPA", "IPL", "SUV", "ATV", "RV", "HEPA", "PVC", "ABS", "NFC", "RFID", "WIFI", "VR", "AR", "PC", "PS", "SSD", "RAM", "CPU", "GPU", "API", "ISO", "IQ", "ID", "FM", "AM", "MP", "CD", "DVD", "AA", "AAA", "CR", "IP", "PH", "SLS", "PFAS", "KN", "FFP", "EVA", "TPU", "TPE", "NSF", "UL", "CE", "AKA", "ASAP", "FAQ", "RSVP", "OK", "PB", "BLT", "IBS", "TSA", "NBA", "NFL", "MLB", "NHL", "NASA", "LEGO", "IKEA", "NYC", "LA", "PM", "DHT", "AHA", "BHA", "EDT", "EDP", "EVOO", "USP", "NIB", "OTC", "OZ", "LB", "KG", "ML", "GF", "VOC", "VOCS", "FSC", "MSC", "RSPO", "NON", "PETG", "PLA", "KCUP", "QLED", "HDR", "OTG"}  # fmt: skip
SHOUTED = {"NEW", "BUY", "NOW", "OFF", "FREE", "WOW", "TOP", "HOT", "BIG", "ALL", "OUR", "YOU", "GET", "TRY", "FUN", "THE", "AND", "FOR", "YES", "WIN", "HEY", "ONE"}  # fmt: skip
EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u26ff\u2700-\u27bf\u2b05-\u2b55\u2190-\u21ff\u203c\u2049\u231a-\u23ff\u25aa-\u25fe\ufe0f\u20e3]"
    "|(?<!\\w)[:;=8][-'o^]?[)(DPp/|\\]\\[](?!\\w)|<3"
)
PUNCTUATION = re.compile(r"[!?.,;:*~_+=|^#&%$-]*(?:[!?]{2,}|,{2,}|;{2,}|\.{4,}|(?<!\.)\.\.(?!\.)|\*{2,}|[~^|\\<>{}]+|={2,}|_{2,}|#{2,}|\${2,}|-{3,}|\+{2,}|%{2,}|&{2,}|@{2,}|!\?|\?!)+|[►▶●■★☆✓✔→»«]+|(?<=\w)\*(?=\w)|(?<=\s)[*•~+^_]+(?=\s)")  # fmt: skip
DISEASES = r"(?:colds|the (?:common )?cold|common cold|a cold(?! \w)|cold(?= (?:and|&|or|/) ?flu)|flu|influenza|covid\S*|coronavirus|virus(?:es)?|infections?|cancers?|tumou?rs?|diabet(?:es|ics?)|arthritis|arthritic \w+|asthma|eczema|psoriasis|rosacea|acne|depression|anxiety(?: disorder)?|insomnia|migraines?|headaches?|heart (?:disease|attacks?|failure)|(?<!one )(?<!each )(?<!every )(?<!brush )(?<!single )strokes?|hypertension|(?:high )?blood pressure|(?:bad |high )?cholesterol|alzheimer\S*|dementia|parkinson\S*|osteoporosis|rheumati\w+|allerg(?:y|ies|ic \w+)|hay ?fever|ibs|irritable bowel|crohn\S*|colitis|ulcers?|acid reflux|heartburn|indigestion|constipation|diarrh\w+|gout|(?:nail |toe )?fungus|fungal \w+|athlete'?s foot|warts?|herpes|cold sores?|shingles|bronchitis|pneumonia|sinusitis|tonsillitis|obesity|adhd|autism|epilepsy|seizures|an(?:a)?emia|kidney (?:disease|stones?|failure)|liver disease|dermatitis|utis?|urinary tract infections?|inflammation|disease|illness(?:es)?|sickness|nausea|nerve pain|neuropathy|sciatica|fibromyalgia|lupus|multiple sclerosis|gum disease|gingivitis|cavities|tooth decay|glaucoma|cataracts?|macular degeneration|vertigo|tinnitus|hair loss|impotence|erectile dysfunction|infertility|hangovers?|fevers?|pink eye|ear infections?|yeast infections?|blood clots|varicose veins|h(?:a)?emorrhoids|piles|ptsd|bipolar disorder)"  # fmt: skip
REMEDY = r"(?:treat(?:s|ing|ment (?:for|of))?|cur(?:e|es|ing)|prevent(?:s|ing|ion of)?|heal(?:s|ing)?|fight(?:s|ing)?(?: off)?|revers(?:e|es|ing)|reliev(?:e|es|ing)|relief (?:from|of|for)|remed(?:y|ies) (?:for|against)?|diagnos(?:e|es|ing)|detect(?:s|ing)?|mitigat(?:e|es|ing)|stops?|halts?|eliminat(?:e|es|ing)|beat(?:s|ing)?|combat(?:s|ing)?|defeat(?:s|ing)?|destroy(?:s|ing)?|conquer(?:s|ing)?|battl(?:e|es|ing)|protect(?:s|ion)? (?:you |your family |against |from |you from |you against )+|eas(?:e|es|ing)|lower(?:s|ing)?|reduc(?:e|es|ing)(?: the)?(?: risk of)?|cut(?:s)?(?: the)? risk of|kills?|clear(?:s|ing)?(?: up)?|banish(?:es)?|end(?:s)?|(?:get )?rid of|goodbye,? (?:to )?|free (?:of|from)|manag(?:e|es|ing)|control(?:s)?|under control|calm(?:s)?|tam(?:e|es)|shorten(?:s)?|shrink(?:s)?|dissolv(?:e|es)|no more|against|for(?= (?:\w+ )?(?!a cold|the cold))|sooth(?:e|es|ing)|alleviat(?:e|es|ing)|ward(?:s|ing)? off|keep(?:s)? .{0,12}(?:away|at bay)|defend(?:s)? against|guard(?:s)? against|immun(?:e|ity) (?:to|against)|works? (?:on|against)|cop(?:e|es) with|symptoms of|helps? (?:with|against)|boost(?:s)? (?:your )?defen[cs]es against)"  # fmt: skip
BODY = r"(?:immun\w+|heart|bone|joint|digesti\w+|gut|brain|memory|cognit\w+|mood|energy|metaboli\w+|eye|vision|liver|kidney|thyroid|prostate|hormon\w+|hair|skin|nail|muscle|sleep|stress|focus|respiratory|lung|cardiovascular|circulat\w+|nervous|urinary|bladder|blood sugar|blood|antioxidant|cell\w*|healthy \w+|relaxation|calm\w*|stamina)"  # fmt: skip
SUPPORTS = rf"(?:(?:support|promot|maintain|boost|strengthen|enhanc|improv|aid|nourish|regulat|stimulat|fuel|sharpen|increas|balanc|replenish|restor|revitali[sz]|protect|optimi[sz]|elevat|activat)(?:s|es|e|ing)?|help(?:s)?(?: (?:you|your|to))* (?:support|maintain|promote|keep|build|boost|fuel|protect|regulate|restore|improve|strengthen|balance|manage|sleep)|good for|for (?:a )?(?:strong|healthy|better)\w*)(?: (?:a |your |the |healthy |normal |strong |better |optimal |daily |overall |natural |whole |kids'? |women'?s |men'?s |restful |deep |mental |good |lasting |long[- ]term |beneficial |proper |body'?s |own |clear |steady )*){BODY}(?: (?:health|function|system|support|balance|response|strength|levels?|defen[cs]es?|flora|growth|production|recovery|wellness|tract|movement|mobility|comfort|flexibility|quality|clarity|performance))*"  # fmt: skip
CLAIMED = rf"{SUPPORTS}|(?:better|deeper|deep|restful|more|stronger|strong|sharper|healthier|healthy|improved|lasting|calmer|faster|natural|all[- ]day|normal|thicker|longer|clearer|brighter|glowing|radiant|flexible) (?:and \w+ |[- ])?{BODY}|{BODY} (?:and \w+ )?(?:support|health|boost(?:er|ing)?|function|formula|defen[cs]e|balance|comfort|recovery|strength|wellness|vitality|mobility|growth|care|relaxation)|(?:calms?|eases?|relax(?:es)?|soothes?|clears?) (?:the |your )?(?:mind|body|nerves?|stomach|mood|joints?|muscles?)|(?:fall asleep|sleep better|sleep through|wake up refreshed|stay (?:focused|sharp|calm|energi[sz]ed|regular|healthy)|feel (?:younger|calmer|energi[sz]ed|stronger|sharper)|beat fatigue|fights? (?:fatigue|free radicals|tiredness|stress)|detox\w*)"  # fmt: skip
SUPPLEMENT = r"(?:(?:multi|b-complex )?vitamins?|vitamin [a-k]\d{0,2}|nutraceuticals?|nootropics?|adaptogens?|glucosamine|chondroitin|psyllium|spirulina|chlorella|moringa|ginkgo|maca|reishi|lion'?s mane|valerian|l-theanine|keratin|hyaluronic|selenium|folic acid|krill oil|cod liver oil|fib(?:er|re) supplement|sleep aid|pre-?workout|bcaas?|amino acids?|lutein|cranberry (?:pills|tablets|capsules)|pills?|supplements?|capsules?|gumm(?:y|ies)|probiotics?|prebiotics?|collagen|omega|fish oil|minerals?|zinc|magnesium|iron tablets?|calcium|melatonin|protein powder|herbal|extract|turmeric|ashwagandha|elderberry|echinacea|ginseng|multivitamin|softgels?|tablets?|drops|tincture|biotin|coq10|creatine|whey|electrolyte|immune|greens powder|mushroom powder|elixir|tonic)"  # fmt: skip
THING = rf"(?:(?:back|neck|knee|joint|muscle|foot|nerve|menstrual|period|tooth|chronic)? ?(?:pains?|aches?|cramps?|soreness|stiffness)|wrinkles?|fine lines|crow'?s feet|toxins?|scars?|stretch marks|cellulite|age spots|dark spots|blemish\w*|pimples|burns|bruises|swelling|bloating|puffiness|(?:dry |cracked |damaged |irritated |sensitive |sagging |ag(?:e)?ing )+(?:skin|heels|hands|lips)|cracked heels|tissue|cartilage|collagen|bacteria|free radicals|fatigue|tiredness|jet ?lag|stress|tension|snoring|sore (?:throat|muscles)|eye strain|cough(?:s|ing)?|congestion|hot flashes|(?:your )?metabolism|testosterone|hormones?|{DISEASES})"  # fmt: skip
HEALTH = rf"(?:{THING} (?:\w+ )?(?:gone|away|disappear\w*|vanish\w*|relief|relieving)|(?:cur|heal|reliev|repair|rebuild|regenerat|eras|remov|revers|eliminat|stop|draw|flush|purg|pull|kill|prevent|treat|banish|undo|melt|boost|stimulat|increas|eas|end|fight|combat|sooth|alleviat|reduc)(?:e|es|s|ing|ping)?(?: (?!and |with |or |for |that )[\w'-]+){{0,3}}? {THING}|(?:goodbye,? (?:to )?|no more |free (?:of|from) |relief (?:from|of|for) |remedy for |rid of |against |for )(?:[\w'-]+ ){{0,2}}?{THING}|cures?|heals?|healing|reliev(?:e|es|ing)|(?:pain|stress|ache|anxiety|muscle|joint|back|headache|sinus|tension|allergy|itch|cramp|arthritis|migraine|gas|symptom)[- ](?:relief|relieving|free)|(?:fast|instant|lasting|soothing|natural|quick|cooling|all[- ]day|targeted|deep) relief|relief (?:from|for|of)|boost(?:s|ing)? (?:your )?(?:immun\w*|metabolism|collagen|testosterone|hormones?|circulation)|detox(?:es|ify|ifies|ifying|ification)?|anti[- ]?(?:inflammatory|aging|ageing|bacterial|viral|fungal|depressant|anxiety|microbial|septic)|regrow(?:s)?|(?:stimulates?|restores?|regrows?) (?:lost )?hair|younger(?: looking)?(?: skin)?|rejuvenat\w+|reverses? (?:the )?(?:signs of )?ag(?:e)?ing|turns? back the clock|cleanses? (?:your |the )?(?:liver|colon|body|blood|kidneys)|therapeutic|medicinal|curative|clinical[- ]strength|doctor in a \w+|{SUPPORTS})"  # fmt: skip
NOT_HEALTH = r"treat(?:s|ing)? (?:yourself|for|your (?:family|guests|taste|dog|cat|pet|kids|mum|mom)|time|them|bag|box|of)|(?:[\w-]+ )?treats?(?= (?:baked|made|with|in|for|your|from|they|to|and|$))|(?:dry|air|salt|oak|smoke)?[- ]?cured (?:ham|meat|bacon|salami|sausage|salmon|olives?|egg)|(?:varnish|glue|resin|paint|epoxy|concrete|adhesive|sealant|gel|ink|coat(?:ing)?|grout|polish|putty|filler|it|plaster|cement|foam|mortar|uv)\w*(?: \w+)? (?:cures?|heals?)|cures? (?:in(?!\w)(?! the body)|within|under|fully|hard|clear|to a|at room)|curing (?:time|lamp)|in relief|relief (?:print|map|carving|tile)|trick or treat|a treat|good for (?:the )?(?:kids|days|weeks)|heals? over|self[- ]healing (?:mat|film)|healing crystals? (?:book|kit)|for healthy (?:snack|lunch|meal)\w*|(?:healthy|better) (?:snack|lunch|meal|option|choice|recipe)\w*|for (?:oily|dry|sensitive|normal|combination|damaged|curly|fine) (?:skin|hair)|(?:reliev|reduc|eas)\w* (?:boredom|pressure on|clutter|noise|the load|into|waste|wrinkles in|static|glare|vibration|moving)|(?:stress|tension) (?:ball|toy|rod)s?|(?:removes?|prevents?|resists?|fights?|reduces?|eases?) (?:\w+ ){0,2}(?:wrinkles|stiffness|tension|bacteria|burns|scars)(?= (?:in|from|on) (?:\w+ )?(?:shirts?|linen|fabric|clothes|cotton|suits?|wood|counters?|surfaces|cables?|pans?))"  # fmt: skip
DISCLAIMER = (
    "this statement has not been evaluated by the food and drug administration",
    "this product is not intended to diagnose, treat, cure, or prevent any disease",
)
QUALIFIED = r"with (?:\w+ )*(?:imported|foreign|global|domestic and)|(?:imported|foreign) (?:and domestic )?(?:\w+ )?(?:parts?|clay|materials?|ingredients?|components?)|of (?:\w+ )?(?:imported|foreign|global)|assembled in|from (?:imported|global)|and imported"  # fmt: skip
AMAZON_MARKS = r"amazon(?:'s)? (?:choice|best ?seller|prime|fresh|basics|exclusive|recommended|approved|favou?rite)|amazon|best ?sellers? (?:badge|rank)|alexa|kindle|echo (?:dot|show|device|speaker)s?|fire (?:tv|tablet|stick)|ring doorbell|prime (?:day|video|member\w*|delivery|shipping|eligible)|audible|twitch"  # fmt: skip
COMPATIBLE = r"(?:works?|compatible|pairs?|connects?|designed|made|built|ready|for use|use|enabled|syncs?|integrates?) (?:with|for)|for"  # fmt: skip
HALF_A_YEAR = 183
EVENTS = {  # month and day; shifting feasts by their latest day
    "christmas": (12, 25), "xmas": (12, 25), "santa": (12, 25), "holiday season": (12, 31), "hanukkah": (12, 30), "new year": (1, 2),
    "halloween": (10, 31), "trick or treat": (10, 31), "thanksgiving": (11, 28), "black friday": (11, 29), "cyber monday": (12, 2),
    "valentine": (2, 14), "easter": (4, 25), "st. patrick": (3, 17), "st patrick": (3, 17), "mother's day": (5, 14), "father's day": (6, 21),
    "fourth of july": (7, 4), "4th of july": (7, 4), "july 4": (7, 4), "labor day": (9, 7), "memorial day": (5, 31), "back to school": (9, 15),
    "super bowl": (2, 14), "cinco de mayo": (5, 5),
}  # fmt: skip
NUTRITION = {  # claim: (nutrient keys, limit per 100 g, at least), Annex of Regulation 1924/2006
    r"high[- ](?:in )?fib(?:re|er)|rich in fib(?:re|er)|fib(?:re|er)[- ]rich": (("fibre_g", "fiber_g"), 6.0, True),
    r"source of fib(?:re|er)|contains fib(?:re|er)|with fib(?:re|er)": (("fibre_g", "fiber_g"), 3.0, True),
    r"fat[- ]free|0 ?% fat|zero fat|no fat": (("fat_g",), 0.5, False),
    r"low[- ](?:in )?fat": (("fat_g",), 3.0, False),
    r"low[- ](?:in )?saturates|low saturated fat": (("saturates_g", "saturated_fat_g"), 1.5, False),
    r"sugar[- ]free|zero sugar|no sugar": (("sugars_g", "sugar_g"), 0.5, False),
    r"low[- ](?:in )?sugars?": (("sugars_g", "sugar_g"), 5.0, False),
    r"salt[- ]free|sodium[- ]free": (("salt_g",), 0.0125, False),
    r"low[- ](?:in )?(?:salt|sodium)": (("salt_g",), 0.3, False),
    r"low[- ](?:in )?(?:energy|calories?|calorie)": (("energy_kcal", "kcal"), 40.0, False),
    r"high[- ](?:in )?protein|rich in protein|protein[- ]rich": (("protein_g",), 12.0, True),
    r"source of protein": (("protein_g",), 6.0, True),
    r"(?:no|without|zero|0 ?g) added sugars?|unsweetened": (("added_sugars_g", "added_sugar_g"), 0.0, False),
}
MINERALS = {  # the reference value of a day, Annex XIII of Regulation 1169/2011: a source holds 15 % of it, high is 30 %
    r"vitamin a": ("vitamin_a_ug", 800.0), r"vitamin d3?": ("vitamin_d_ug", 5.0), r"vitamin e": ("vitamin_e_mg", 12.0),
    r"vitamin c": ("vitamin_c_mg", 80.0), r"vitamin b6": ("vitamin_b6_mg", 1.4), r"vitamin b12": ("vitamin_b12_ug", 2.5),
    r"folic acid|folate": ("folic_acid_ug", 200.0), r"calcium": ("calcium_mg", 800.0), r"magnesium": ("magnesium_mg", 375.0),
    r"iron": ("iron_mg", 14.0), r"zinc": ("zinc_mg", 10.0), r"potassium": ("potassium_mg", 2000.0), r"iodine": ("iodine_ug", 150.0),
    r"omega[- ]?3(?: fatty acids)?": ("omega3_g", 2.0),
}  # fmt: skip
for _name, (_key, _day) in MINERALS.items():
    NUTRITION[rf"(?:high|rich) in (?:{_name})|(?:{_name})[- ]rich|packed with (?:{_name})"] = (
        (_key,),
        0.3 * _day,
        True,
    )
    NUTRITION[rf"(?:a )?(?:good |natural )?source of (?:{_name})|(?:with|contains) (?:{_name})"] = (
        (_key,),
        0.15 * _day,
        True,
    )
EU_HEALTH = rf"(?:lower|reduc|improv|boost|strengthen|protect|support|promot|enhanc|aid|help|stimulat|regulat|increas|balanc|cleans|purif|detox|heal|cur|treat|prevent|fight|reliev|soothe|calm|revitali[sz]|energi[sz]|keep|restor|repair|relax|maintain|contribut|eas|replenish|nourish|optimi[sz]|build|slow|clean)\w*(?: (?:your|the|against|a|healthy|natural|to|you|support|keep|maintain|body'?s?|daily|better|from|normal|good|strong|own|whole|tired|bad|and|high|whole|sore))* (?:cholesterol|immun\w*|heart|bones?|joints?|digesti\w+|gut|brain|memory|mood|metabolism|eyes?|liver|blood \w+|skin(?! tone)|hair|muscles?|sleep|stress|focus|concentration|toxins?|defen[cs]es|ageing|aging|throat|stomach|nerves?|nervous system|body|cells?|kidneys?|lungs?|circulation|teeth|tiredness|fatigue|thyroid|hormones?|vitality|immune|energy levels?|wellbeing|{DISEASES})|good for (?:your )?(?:heart|gut|bones|brain|health|eyes|you)|healthy (?:heart|gut|bones|skin)|super ?food|detox\w*|immun\w+[- ](?:boost\w*|support\w*)|(?:pro|pre)biotics?|anti-?oxidants?|anti-?inflammatory|(?:healthier|younger|stronger|longer) (?:you|body|life|heart|bones|skin)|(?:for|boosts?) (?:your )?(?:health|immunity|vitality|wellbeing)|(?:doctor|medicine) in|health (?:boost|benefits?)|heart[- ]healthy|gut[- ]friendly|good gut|brain food"  # fmt: skip
AUTHORISED = r"contributes? to (?:the )?(?:normal|maintenance|protection|reduction)|(?:is|are) needed for the (?:maintenance|normal)|help(?:s)? maintain normal|has been shown to lower"  # fmt: skip
ALCOHOL = r"(?:gin|vodka|beers?|wines?|whisk(?:e)?y|rum|ciders?|lagers?|tequila|prosecco|champagne|cocktails?|spirits?|bourbon|ale|stout|liqueur|brandy|hard seltzer|mezcal|scotch|cognac|port wine|sake|shots)"  # fmt: skip
NO_ALCOHOL = r"(?:ginger|root|alcohol[- ]free|non[- ]alcoholic|0(?:\.0)? ?%|zero|dealcoholi[sz]ed) ?(?:beers?|ales?|wines?|gin|lager|cider|\w+)?|alcohol[- ]free|non[- ]alcoholic|beer (?:glass|mug|bread|batter)\w*|wine (?:glass|vinegar|rack|gum)\w*|cider vinegar|rum raisin"  # fmt: skip
SUCCESS = r"life (?:and soul )?of (?:the |any |every )?party|(?:more|be|you|so|feel|instantly) popular|popularity|confiden\w+|seduc\w+|sex\w*|irresistible|attractive|attracts? (?:her|him|women|men|the)|impress (?:her|him|your|them|the|any|everyone)|(?<!award[- ])(?<!prize[- ])win(?:s|ning|ner|ners)?|(?:be|like|of|for|makes? you) (?:a |the )?champions?|success\w*|power (?:to|you)|makes? you (?:\w+ )?\w+|(?:gives?|lends?|brings?) you (?:\w+ )*(?:courage|confidence|strength|nerve|edge|power|game)|strong(?:er)? (?:man|men|you)|brave\w*|courage\w*|daring|fearless|scor(?:e|es|ing)|pull(?:s|ing)(?! -?ring|-?tab)|charm (?:her|him|them|anyone|everyone)|flirt\w*|romanc(?:e|ing) (?:her|him)|date night|(?:get|getting) (?:the girl|lucky|the guy)|(?:girls?|women|ladies|men|guys|boys) (?:love|want|will|notice|prefer|fall)|macho|manly|real m[ae]n|unwind your worries|forget (?:your|about)|escape (?:your|from|the)|drown (?:your|sorrows)|liven up|(?:the )?cool (?:kids|crowd|ones)|(?:the )?coolest|(?:main|best|main) event of your|fit in|belong|friends? magnet|teens?|teenage\w*|students?|kids?|children|youth\w*|(?:the |for )?young (?:people|crowd|adults?|ones|and|at|guns)|freshers|(?<!old[- ])(?<!new[- ])school|under ?18|(?:at|for|in) uni(?:versity)?|campus|college|prom|athlet\w+|match(?:es)?(?= |$)(?<!perfect match)|match[- ]?day|game[- ]winning|goals?|podium|trophy|victory|marathon|sport(?:s|ing)?(?: success)?|race day|work ?out|gym|stress|anxiet\w+|lonel\w+|relax(?:es)? you|cure for|medicine|drink(?:s)? (?:more|all|up)|down (?:it|one)|binge|bottoms up|shots all night|all night long|before driving|get (?:drunk|wasted|tipsy|hammered)|boss|promotion|status"  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One rule as data."""

    id: str
    on: str  # a network, a law (us, eu, uk), or any
    severity: str  # block, needs_proof, warn
    message: str
    fix: str = ""
    kind: str = "lexicon"
    words: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()  # empty: all
    spec: Mapping[str, Any] = field(default_factory=dict)
    proof: bool = False
    source: str = ""
    valid_from: date | None = None
    valid_to: date | None = None


@dataclass(frozen=True)
class RuleSet:
    """Rules and which laws hold where, under one version."""

    rules: tuple[Rule, ...]
    networks: Mapping[str, tuple[str, ...]]
    version: str
    terms: Mapping[str, str] = field(default_factory=dict)  # <name> in an expression stands for any of these

    def for_network(self, network: str, day: date | None = None) -> list[Rule]:
        """The rules in force at a network: its own, its law's, and those for all.

        Raises:
            BadInput: no such network.
        """
        if network not in self.networks:
            raise BadInput(f"network {network!r} is not known; known are {', '.join(sorted(self.networks))}")
        held = {"any", network, *self.networks[network]}
        return [
            rule
            for rule in self.rules
            if rule.on in held
            and (day is None or rule.valid_from is None or rule.valid_from <= day)
            and (day is None or rule.valid_to is None or rule.valid_to >= day)
        ]


@dataclass(frozen=True)
class Finding:
    rule: str
    severity: str
    start: int  # code points of the original text
    end: int
    message: str
    fix: str = ""
    source: str = ""  # what found it, where it was no rule

    def row(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "source" or value}


@dataclass(frozen=True)
class Verdict:
    verdict: str  # pass, block, needs_proof
    findings: tuple[Finding, ...]
    rule_set_version: str
    text_sha256: str  # a text changed after its verdict is another text

    def row(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "findings": [one.row() for one in self.findings],
            "rule_set_version": self.rule_set_version,
            "text_sha256": self.text_sha256,
        }


@dataclass(frozen=True)
class Case:
    """What a rule looks at."""

    text: str
    folded: Folded
    field: str
    product: str
    facts: Mapping[str, Any]

    @property
    def brand(self) -> str:
        return str(self.facts.get("brand") or "")

    @property
    def is_supplement(self) -> bool:
        about = f"{self.product} {self.facts.get('category') or ''}"
        return bool(re.search(rf"\b{SUPPLEMENT}\b", about, re.IGNORECASE))


# What finds more than rules can say, such as a language model: (text, network, rules held there) -> findings.
Layer = Callable[[Case, str, Sequence[Rule]], Iterable[Finding]]
Found = tuple[int, int] | tuple[int, int, str, str]  # span, and severity and message where they differ


@lru_cache(maxsize=1)
def shipped_rows(path: Path = RULES) -> dict[str, dict[str, Any]]:
    """The shipped rules as they are written, by id: what a console rule in their place begins with.

    One that is written in several parts is left out: a single rule would not say all that it says.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]
    parts = Counter(row["id"] for row in rows)
    return {row["id"]: row for row in rows if parts[row["id"]] == 1}


@lru_cache(maxsize=4)
def shipped(path: Path = RULES) -> RuleSet:
    """The rules that the product ships."""
    return read(path.read_text(encoding="utf-8"), path.name)


def read(text: str, where: str = "rules") -> RuleSet:
    """A rule set from YAML.

    Raises:
        BadInput: not YAML, a rule without what it needs, an expression that is none; with the rule.
    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{where}: not YAML: {str(error).splitlines()[0]}") from None
    terms = dict(given.get("terms") or {})
    rules = tuple(make_rule(row, f"{where} {row.get('id', '?')}", terms) for row in given["rules"])
    networks = {name: tuple(laws or ()) for name, laws in given["networks"].items()}
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return RuleSet(rules, networks, f"{given.get('version', 1)}+{digest}", terms)


def amended(base: RuleSet, rows: Iterable[Mapping[str, Any]]) -> RuleSet:
    """A rule set with rules kept elsewhere: each takes the place of all with its id, or leaves them out.

    Args:
        rows: rules as data; one with ``retired`` true takes its id out.

    Raises:
        BadInput: a row is no rule.
    """
    kept = sorted((dict(row) for row in rows), key=lambda row: str(row["id"]))
    if not kept:
        return base
    mine = {row["id"] for row in kept}
    rules = [rule for rule in base.rules if rule.id not in mine]
    for row in kept:
        if not row.pop("retired", False):
            rules.append(make_rule(row, f"rule {row['id']}", base.terms))
    digest = hashlib.sha256(repr(kept).encode()).hexdigest()[:8]
    return RuleSet(tuple(rules), base.networks, f"{base.version}.{digest}", base.terms)


def make_rule(row: Mapping[str, Any], where: str, terms: Mapping[str, str] | None = None) -> Rule:
    """A rule from its data.

    Args:
        terms: what ``<name>`` in its expressions stands for.

    Raises:
        BadInput: something is missing, or an expression is none.
    """
    for name in ("id", "on", "severity", "message"):
        if not row.get(name):
            raise BadInput(f"{where}: {name} is missing")
    if row["severity"] not in ("block", "needs_proof", "warn"):
        raise BadInput(f"{where}: severity is {row['severity']!r}: block, needs_proof or warn")
    kind = row.get("kind", "lexicon")
    if kind not in CHECKS:
        raise BadInput(f"{where}: kind is {kind!r}: one of {', '.join(CHECKS)}")
    words = [_spelled(word, terms or {}) for word in (*row.get("words", ()), *row.get("more", ()))]
    unless = [_spelled(word, terms or {}) for word in row.get("unless", ())]
    for pattern in (*words, *unless):
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(f"{where}: {pattern[:60]!r} is no regular expression: {error}") from None
    known = {"id", "on", "severity", "message", "fix", "kind", "words", "more", "unless", "fields", "proof", "source", "valid_from", "valid_to"}  # fmt: skip
    return Rule(
        id=row["id"],
        on=row["on"],
        severity=row["severity"],
        message=row["message"],
        fix=row.get("fix", ""),
        kind=kind,
        words=tuple(words),
        unless=tuple(unless),
        fields=tuple(row.get("fields", ())),
        spec={key: value for key, value in row.items() if key not in known},
        proof=bool(row.get("proof", False)),
        source=row.get("source", ""),
        valid_from=row.get("valid_from"),
        valid_to=row.get("valid_to"),
    )


def _spelled(pattern: str, terms: Mapping[str, str]) -> str:
    return re.sub(r"<([a-z_]+)>", lambda found: f"(?:{terms[found[1]]})" if found[1] in terms else found[0], pattern)


def check(
    text: str,
    *,
    network: str,
    field: str = "headline",
    product: str = "",
    facts: Mapping[str, Any] | None = None,
    rules: RuleSet | None = None,
    day: date | None = None,
    layers: Sequence[Layer] = (),
) -> Verdict:
    """May the text be published?

    Args:
        network: where; ``generic_us``, ``generic_eu``, ``generic_uk`` for the law alone.
        field: headline, tagline, subhead, cta, brand_name, alt_text ...; any name.
        product: what is advertised, in words.
        facts: what may be looked up (CONTRACTS section 5): evidence on file, rivals, prices ...
        rules: other than the shipped ones.
        day: only rules in force on that day; all where absent.
        layers: what may add findings, as warnings or as needing proof; none takes one of the rules away, or blocks.

    Raises:
        BadInput: no such network.
    """
    held = rules or shipped()
    case = Case(text, fold(text), field, product, facts or {})
    found: list[Finding] = []
    seen: set[tuple[str, int, int]] = set()
    here = held.for_network(network, day)
    for rule in here:
        if rule.fields and field not in rule.fields:
            continue
        for hit in CHECKS[rule.kind](rule, case):
            start, end = hit[0], hit[1]
            severity, message = (hit[2], hit[3]) if len(hit) == 4 else (rule.severity, rule.message)
            if rule.proof and severity == "block":
                if proved(text[start:end], case.facts.get("evidence")):
                    continue
                severity = "needs_proof"
            if (rule.id, start, end) not in seen:
                seen.add((rule.id, start, end))
                found.append(Finding(rule.id, severity, start, end, message, rule.fix))
    named = {one.rule for one in found}
    for layer in layers:
        more = [one for one in layer(case, network, here) if one.rule not in named]
        found += [one if one.severity == "warn" else replace(one, severity="needs_proof") for one in more]
    found.sort(key=lambda one: (one.start, one.end, one.rule))
    return Verdict(worst(found), tuple(found), held.version, hashlib.sha256(text.encode()).hexdigest())


def worst(findings: Iterable[Finding]) -> str:
    """The verdict that findings come to: block, needs_proof or pass."""
    severities = {one.severity for one in findings}
    return "block" if "block" in severities else "needs_proof" if "needs_proof" in severities else "pass"


def pieces(text: str, findings: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[int, ...]]]:
    """A text cut where findings begin and end: each piece with the numbers, from 1, of the findings that hold it."""
    spans = [
        (max(0, min(int(one["start"]), len(text))), max(0, min(int(one["end"]), len(text))), number)
        for number, one in enumerate(findings, 1)
    ]
    cuts = sorted({0, len(text), *(place for span in spans for place in span[:2])})
    return [
        (text[a:b], tuple(number for start, end, number in spans if start <= a and b <= end))
        for a, b in itertools.pairwise(cuts)
    ]


UNPROVED = re.compile(
    r"(?i)\b(?:no|not|none|never|without|pending|expired|missing|requested|withdrawn|unverified|draft|lacks?|awaiting|planned|offsets?)\b"
)


def proved(claim: str, evidence: Any) -> bool:
    """Whether evidence on file speaks of the same thing: a number of the claim's, else a word of four letters.

    Evidence that something is missing, expired or only planned proves nothing; nor does one with other numbers.
    """
    if not evidence:
        return False
    items = [evidence] if isinstance(evidence, str) else list(evidence)
    mine = _stems(claim)
    numbers = {one for one in mine if one[0].isdigit()}
    return any((numbers or mine) & _stems(str(item)) for item in items if not UNPROVED.search(str(item)))


def _stems(text: str) -> set[str]:
    words = {word[:6] for word in re.findall(r"[a-z]{4,}", text.lower())}
    return words | set(re.findall(r"\d+(?:\.\d+)?", text))


# -- how to look


@lru_cache(maxsize=2048)
def _pattern(words: Sequence[str], loose: bool = False) -> re.Pattern[str]:
    joined = "|".join(f"(?:{word})" for word in words)
    return re.compile(joined if loose else rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE)


WINDOW, STEP = 320, 160  # of a long text: what a hostile one costs grows with its length and no faster


def _scan(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """All matches; a text longer than any ad is looked at window by window."""
    if len(text) <= 2 * WINDOW:
        yield from pattern.finditer(text)
        return
    done = 0
    for start in range(0, len(text), STEP):
        last = start + WINDOW >= len(text)
        for match in pattern.finditer(text, max(start, done), start + WINDOW):
            if match.start() >= start + STEP and not last:
                break
            done = match.end()
            yield match
        if last:
            return


def _words(expression: str, text: str) -> Iterator[re.Match[str]]:
    return _scan(_pattern((expression,)), text)


def _matches(pattern: re.Pattern[str], case: Case, text: str | None = None) -> Iterator[tuple[int, int]]:
    """Spans of the folded text, outside the brand's own name."""
    searched = case.folded.text if text is None else text
    brand = [m.span() for m in re.finditer(re.escape(case.brand), searched, re.IGNORECASE)] if case.brand else []
    for match in _scan(pattern, searched):
        start, end = match.span()
        if end > start and not any(a <= start and end <= b for a, b in brand):
            yield start, end


def _lexicon(rule: Rule, case: Case) -> Iterator[Found]:
    loose = bool(rule.spec.get("loose"))
    others = _pattern(rule.unless) if rule.unless else None
    for source in ("text", "product"):
        if source == "product" and rule.spec.get("also") != "product":
            continue
        searched = case.folded.text if source == "text" else f"{case.product} {case.facts.get('category') or ''}"
        near = [m.span() for m in _scan(others, searched)] if others else []
        for start, end in _matches(_pattern(rule.words, loose), case, searched):
            if any(a < end and start < b for a, b in near):
                continue
            if rule.spec.get("own_words") and set() != _stems(searched[start:end]) <= _stems(case.product):
                continue  # what the thing is called is no claim
            yield case.folded.span(start, end) if source == "text" else (0, len(case.text))


def _length(rule: Rule, case: Case) -> Iterator[Found]:
    limit = rule.spec.get("limits", {}).get(case.field)
    count = visible_length(case.text)
    if limit is not None and count > limit:
        yield 0, len(case.text), rule.severity, rule.message.format(limit=limit, count=count)


def _empty(rule: Rule, case: Case) -> Iterator[Found]:
    if not visible_length(case.text.strip()):
        yield 0, len(case.text)


def _obfuscation(rule: Rule, case: Case) -> Iterator[Found]:
    spans = sorted(case.folded.disguises)
    if spans:
        yield spans[0][0], spans[-1][1]


def _capitals(rule: Rule, case: Case) -> Iterator[Found]:
    allowed = set(rule.spec.get("allow", ())) | {w.upper() for w in re.findall(r"\w+", case.brand)}
    brand_words = set(re.findall(r"\w+", case.brand))
    words = [(m[0], m.start(), m.end()) for m in re.finditer(r"[^\W\d_]{2,}(?:'[^\W\d_]+)?", case.folded.text)]
    shouted = []
    for word, start, end in words:
        known = word in allowed or (word in ACRONYMS and not rule.spec.get("strict")) or word in brand_words
        if word.isupper() and not known and not (rule.spec.get("strict") and word in ACRONYMS):
            joined = case.folded.text[max(start - 1, 0) : start] + case.folded.text[end : end + 1]
            if not any(c.isdigit() for c in joined):
                shouted.append((word, start, end))
    for number, (word, start, end) in enumerate(shouted):
        beside = any(case.folded.text[min(end, b) : max(start, a)].isspace() for _, a, b in (*shouted[:number][-1:], *shouted[number + 1 : number + 2]))  # fmt: skip
        if rule.spec.get("strict") or beside or len(word) > 3 or word in SHOUTED:
            yield case.folded.span(start, end)
    for word, start, end in words:
        if re.search(r"[a-z][A-Z][a-z]+[A-Z]|^[a-z][A-Z][a-z][A-Z]", word) and word not in brand_words:
            yield case.folded.span(start, end)
    if not rule.spec.get("strict") and words and case.field in ("headline", "custom_headline"):
        first, start, end = words[0]
        opens = not case.folded.text[:start].strip(" \"'“(")
        if first[0].islower() and opens and first not in brand_words and not re.match(r"[a-z][A-Z]", first):
            yield case.folded.span(start, end)


def _punctuation(rule: Rule, case: Case) -> Iterator[Found]:
    masked = re.sub(r"\{\{?[^{}]*\}?\}|<[^<>]*>", lambda m: " " * len(m[0]), case.text)  # template marks are told apart
    for match in _scan(PUNCTUATION, masked):
        yield match.span()


def _emoji(rule: Rule, case: Case) -> Iterator[Found]:
    for match in EMOJI.finditer(case.text):
        yield match.span()


def _marks(rule: Rule, case: Case) -> Iterator[Found]:
    """The network's marks; compatibility is fine when the product stands before it."""
    for start, end in _matches(_pattern((AMAZON_MARKS,)), case):
        before = case.folded.text[:start]
        fits = re.search(rf"\b(?:{COMPATIBLE})(?: (?:your|any|all|the|select))*\s*$", before, re.IGNORECASE)
        mark = case.folded.text[start:end].lower()
        named = fits and _names_product(before[: fits.start()], case)
        if not (named and not re.search(r"choice|seller|prime|approved|recommended", mark)):
            yield case.folded.span(start, end)


def _names_product(text: str, case: Case) -> bool:
    words = {w.lower()[:5] for w in re.findall(r"\w{3,}", case.product)}
    mine = {w.lower()[:5] for w in re.findall(r"\w{3,}", text)}
    return bool(words & mine) if words else bool(mine)


def _rivals(rule: Rule, case: Case) -> Iterator[Found]:
    rivals = [str(name) for name in case.facts.get("rival_brands") or () if str(name).strip()]
    if rivals:
        for start, end in _matches(_pattern(tuple(re.escape(name) for name in rivals)), case):
            yield case.folded.span(start, end)
    if rule.spec.get("retailers"):
        shops = [name for name in RETAILERS if name.lower() != rule.on]
        for match in re.finditer(rf"(?<!\w)(?:{'|'.join(map(re.escape, shops))})(?!\w)", case.folded.text):
            if match[0].lower() not in case.brand.lower():
                yield case.folded.span(*match.span())
        context = rf"(?:than|at|from|like|as|or|vs\.?|versus|over|beat|beats|unlike|to|of|skip|leave|by|with) ({'|'.join(map(re.escape, AMBIGUOUS))})(?!\w)"
        middle = r"(?<=[a-z,] )(Target|Lowe's)(?!\w)"  # with a capital where no sentence begins
        for match in re.finditer(f"{context}|{middle}", case.folded.text):
            name = match[1] or match[2]
            if name.lower() != rule.on and name.lower() not in case.brand.lower():
                yield case.folded.span(*match.span(1 if match[1] else 2))
    if rule.words:
        for start, end in _matches(_pattern(rule.words), case):
            yield case.folded.span(start, end)


def _relevance(rule: Rule, case: Case) -> Iterator[Found]:
    if case.product and case.text.strip() and not _names_product(case.folded.text, case):
        yield 0, len(case.text)


def _ending(rule: Rule, case: Case) -> Iterator[Found]:
    if case.text.strip() and case.text.rstrip()[-1] not in ".!?*":
        yield len(case.text.rstrip()) - 1, len(case.text.rstrip())


def _sentence_case(rule: Rule, case: Case) -> Iterator[Found]:
    words = re.findall(r"[^\W\d_]+", case.text)
    brand = set(re.findall(r"\w+", case.brand))
    if not words:
        return
    wrong = words[0][0].islower() or any(
        w[0].isupper() and w not in brand and w not in ACRONYMS and w != "I" for w in words[1:]
    )
    if wrong or (words[0].isupper() and len(words[0]) > 1 and words[0] not in brand | ACRONYMS):
        yield 0, len(case.text)


def _disclaimer_pair(rule: Rule, case: Case) -> Iterator[Found]:
    pair = ("disclaimer_label", "disclaimer_text")
    if any(name in case.facts for name in pair) and bool(case.facts.get(pair[0])) != bool(case.facts.get(pair[1])):
        yield 0, len(case.text)
    if "disclaimer" in case.field and "|" in case.text:
        label, _, copy = case.text.partition("|")
        if bool(label.strip()) != bool(copy.strip()):
            yield 0, len(case.text)


def _alternative_text(rule: Rule, case: Case) -> Iterator[Found]:
    text = case.folded.text
    if not text.strip() or (not _names_product(text, case) and not (case.brand and case.brand.lower() in text.lower())):
        yield 0, len(case.text)


def _season(rule: Rule, case: Case) -> Iterator[Found]:
    end = case.facts.get("campaign_end")
    if not end:
        return
    try:
        last = end if isinstance(end, date) else date.fromisoformat(str(end)[:10])
    except ValueError:
        return
    for name, (month, day) in EVENTS.items():
        for match in re.finditer(rf"(?<!\w){re.escape(name)}", case.folded.text, re.IGNORECASE):
            passed = [date(year, month, day) for year in (last.year - 1, last.year) if date(year, month, day) <= last]
            event = max(passed)
            if 1 < (last - event).days < HALF_A_YEAR:  # else the next one is meant
                yield *case.folded.span(*match.span()), rule.severity, rule.message.format(event=name.title())


def _coupon(rule: Rule, case: Case) -> Iterator[Found]:
    offer = str(case.facts.get("offer") or "")
    if "coupon" in offer.lower() and "coupon" not in case.text.lower():
        yield 0, len(case.text)


def _language(rule: Rule, case: Case) -> Iterator[Found]:
    letters = [c for c in case.text if c.isalpha()]
    latin = sum(c.isascii() or "\u00c0" <= c <= "\u024f" for c in letters)
    if letters and latin < len(letters) / 2 and not case.folded.disguises:
        yield 0, len(case.text)


def _image(rule: Rule, case: Case) -> Iterator[Found]:
    size, contrast = case.facts.get("text_px"), case.facts.get("contrast")
    if (isinstance(size, int | float) and size < 10) or (isinstance(contrast, int | float) and contrast < 4.5):
        yield 0, len(case.text)


def _disease(rule: Rule, case: Case) -> Iterator[Found]:
    body = _without_disclaimer(case.folded.text)
    near = (
        rf"{REMEDY}(?: (?:[\w'-]+[ ,]+){{0,4}}?)?\W*{DISEASES}|{DISEASES}[ -](?:relief|treatment|remedy|cure|fighter|prevention|fighting|free|be gone|symptoms|busting)"
        rf"|{DISEASES}(?: \w+){{0,2}} (?:away|gone|at bay|under control|vanish\w*|disappear\w*|will (?:go|fade)\w*)|{DISEASES}\?"
    )
    for match in _words(near, body):
        if not re.search(r"cold (?:brew|drinks?|water|days?|mornings?|weather|nights?)|(?:clear|ends?|cut|control|protect\w*)s? (?:your |the )?virus(?:es)? (?:scan|soft)", match[0], re.IGNORECASE):  # fmt: skip
            yield case.folded.span(*match.span())


def _without_disclaimer(text: str) -> str:
    found = text
    for sentence in DISCLAIMER:
        at = found.lower().find(sentence)
        if at >= 0:
            found = found[:at] + " " * len(sentence) + found[at + len(sentence) :]
    return found


def _structure_function(rule: Rule, case: Case) -> Iterator[Found]:
    if not case.is_supplement or all(sentence in case.folded.text.lower() for sentence in DISCLAIMER):
        return
    body = _without_disclaimer(case.folded.text)
    for match in _words(CLAIMED, body):
        yield case.folded.span(*match.span())


def _health(rule: Rule, case: Case) -> Iterator[Found]:
    body = _without_disclaimer(case.folded.text)
    near = [m.span() for m in _words(NOT_HEALTH, body)]
    disease = [span[:2] for span in _disease(rule, case)]
    for match in _words(HEALTH, body):
        start, end = match.span()
        span = case.folded.span(start, end)
        if any(a < end and start < b for a, b in near) or any(a < span[1] and span[0] < b for a, b in disease):
            continue
        if case.is_supplement and re.fullmatch(CLAIMED, match[0], re.IGNORECASE):
            continue  # told by the rule on structure and function
        yield span


def _origin(rule: Rule, case: Case) -> Iterator[Found]:
    pattern = r"(?:proudly |100 ?% )?(?:made|built|crafted|grown|manufactured|produced|born|sewn|baked|roasted|bottled) in (?:the )?(?:u\.?s\.?a\.?|u\.s\.?|us|america|united states)|(?:proudly |all[- ]|100 ?% )?american[- ](?:made|built|crafted|grown)|(?:100 ?% |all |truly )american"
    evidence = str(case.facts.get("origin_evidence") or "").lower()
    for match in _words(pattern, case.folded.text):
        rest = case.folded.text[match.end() :]
        if re.search(QUALIFIED, rest, re.IGNORECASE):
            continue
        if re.search(r"all or virtually all|100 ?%|wholly|entirely|fully (?:made|us|domestic)|all (?:parts|materials|ingredients)", evidence) and "import" not in evidence:  # fmt: skip
            continue
        if evidence:
            yield *case.folded.span(*match.span()), "block", "The record says otherwise: " + evidence[:120]
        else:
            yield case.folded.span(*match.span())


def _free_offer(rule: Rule, case: Case) -> Iterator[Found]:
    text = case.folded.text
    not_offer = r"(?!(?:get|your|yours|a|an|one|two|three|with|and|or|for|plus|our|the|is|are|comes?|enjoy|claim|receive|try|win|extra|now|it|ships|shipped|delivered|buy|another|second|\d+) )\w+[- ]free|free[- ](?:range|from|of|standing|flowing|form|style|spirit\w*|hand|roaming|wheel\w*|run|time|to|hand\w*)|feel free|hands[- ]free|for free spirits|free your|worry[- ]free"
    near = [m.span() for m in _words(not_offer, text)]
    shown = re.search(r"buy|purchase|when you|with (?:any|every|each|your|the|a|an|orders?|\d)|orders? over|get one|spend|while|for members|trial|no purchase necessary", text, re.IGNORECASE)  # fmt: skip
    for match in _words("free", text):
        if any(a <= match.start() and match.end() <= b for a, b in near) or shown:
            continue
        span = case.folded.span(*match.span())
        offer = str(case.facts.get("offer") or "").lower()
        if not offer:
            yield *span, "needs_proof", "Nothing on record says what is free and on which condition."
        elif not re.search(r"no (?:purchase|condition)|unconditional|free (?:sample|gift)$", offer):
            yield span


MONEY = r"[$€£] ?(\d+(?:[.,]\d{1,2})?)|(\d+(?:[.,]\d{1,2})?) ?(?:€|£|eur|euros?|dollars?|usd|gbp)"
BEFORE = rf"(?:was|were|originally|formerly|reg(?:ular|ularly)?\.?|list(?: price)?|compare(?:d)? (?:at|to)|msrp|rrp|usually|before|instead of|statt|normally|previously|down from|from) ?(?:price )?:? ?(?:{MONEY})"  # fmt: skip


def _prices(text: str) -> Iterator[tuple[float, int, int]]:
    for match in re.finditer(BEFORE, text, re.IGNORECASE):
        value = next(group for group in match.groups() if group)
        yield float(value.replace(",", ".")), *match.span()


def _former_price(rule: Rule, case: Case) -> Iterator[Found]:
    history = [float(price) for price in case.facts.get("price_history_90d") or ()]
    for price, start, end in _prices(case.folded.text):
        if case.folded.text[start : start + 4].lower() == "from" and not re.search(r"now|to", case.folded.text[end:]):
            continue  # a starting price
        span = case.folded.span(start, end)
        if not history:
            yield *span, "needs_proof", "No price history on record shows this former price."
        elif price > max(history) + 0.005:
            yield *span, rule.severity, rule.message.format(price=f"{price:g}")


def _prior_price(rule: Rule, case: Case) -> Iterator[Found]:
    history = [float(price) for price in case.facts.get("price_history_90d") or ()]
    text = case.folded.text
    told = [found for found in _prices(text) if not (text[found[1] : found[1] + 4].lower() == "from" and not re.search(r"now|to", text[found[2] :]))]  # fmt: skip
    cuts = [m.span() for m in re.finditer(r"[-−]? ?\d+ ?% ?(?:off|discount|reduction|less|cheaper|reduced|rabatt|saving)|(?:save|reduced by|now) \d+ ?%|[-−]\d+ ?%", text, re.IGNORECASE)]  # fmt: skip
    for price, start, end in told:
        span = case.folded.span(start, end)
        if not history:
            yield *span, "needs_proof", "No price history on record shows the lowest price of the last 30 days."
        elif price > min(history) + 0.005:
            yield *span, rule.severity, rule.message.format(price=f"{min(history):g}")
    if cuts and not told:
        severity = rule.severity if history else "needs_proof"
        shown = f"{min(history):g}" if history else "not on record"
        yield *case.folded.span(*cuts[0]), severity, rule.message.format(price=shown)


def _nutrition(rule: Rule, case: Case) -> Iterator[Found]:
    record = case.facts.get("nutrition_per_100g") or {}
    text = case.folded.text
    for pattern, (keys, limit, least) in NUTRITION.items():
        for match in _words(pattern, text):
            span = case.folded.span(*match.span())
            value = next((float(record[key]) for key in keys if key in record), None)
            if value is None:
                yield *span, "needs_proof", f"The product's {keys[0].rpartition('_')[0]} per 100 g is not on record."
            elif (value < limit) if least else (value > limit):
                yield (
                    *span,
                    rule.severity,
                    f"{match[0]} needs {'at least' if least else 'at most'} {limit:g} per 100 g; the record says {value:g}.",
                )
    for match in _words(EU_HEALTH, text):
        if not re.search(AUTHORISED, text, re.IGNORECASE) and not re.search(NOT_HEALTH, match[0], re.IGNORECASE):
            yield case.folded.span(*match.span())


def _alcohol(rule: Rule, case: Case) -> Iterator[Found]:
    about = f"{case.folded.text} {case.product} {case.facts.get('category') or ''}"
    sober = re.sub(rf"(?<!\w)(?:{NO_ALCOHOL})(?!\w)", " ", about, flags=re.IGNORECASE)
    if re.search(r"alcohol[- ]free|non[- ]alcoholic", about, re.IGNORECASE):
        return
    if not re.search(rf"(?<!\w){ALCOHOL}(?!\w)", sober, re.IGNORECASE):
        return
    for match in _words(SUCCESS, case.folded.text):
        yield case.folded.span(*match.span())


CHECKS: dict[str, Callable[[Rule, Case], Iterator[Found]]] = {
    "lexicon": _lexicon,
    "length": _length,
    "empty": _empty,
    "obfuscation": _obfuscation,
    "capitals": _capitals,
    "punctuation": _punctuation,
    "emoji": _emoji,
    "marks": _marks,
    "rivals": _rivals,
    "relevance": _relevance,
    "ending": _ending,
    "sentence_case": _sentence_case,
    "disclaimer_pair": _disclaimer_pair,
    "alternative_text": _alternative_text,
    "season": _season,
    "coupon": _coupon,
    "language": _language,
    "image": _image,
    "disease": _disease,
    "structure_function": _structure_function,
    "health": _health,
    "origin": _origin,
    "free_offer": _free_offer,
    "former_price": _former_price,
    "prior_price": _prior_price,
    "nutrition": _nutrition,
    "alcohol": _alcohol,
}
