"""The phrasebook of the simulated world: what items of five domains are called, and which words betray their topic."""

from __future__ import annotations

from dataclasses import dataclass

TOPICS = ("sport", "food", "music", "technology", "home", "family", "nature", "history")

# Pairs of topics share a department, so a category narrows the topic down but does not name it.
DEPARTMENTS = {
    "sport": "active",
    "nature": "active",
    "food": "living",
    "home": "living",
    "music": "culture",
    "history": "culture",
    "technology": "everyday",
    "family": "everyday",
}

# Sentences that hold in any domain; they let taste for a topic carry over from one scenario to another.
HINTS = {
    "sport": (
        "For runners, cyclists and everyone who trains.",
        "Made with athletes who compete every weekend.",
        "Good before the match and after the workout.",
        "A favourite of cycling clubs and climbing teams.",
    ),
    "food": (
        "For people who cook, bake and taste everything.",
        "Recipes, spices and kitchens play the main part.",
        "A chef's choice, from the market to the table.",
        "Best enjoyed by those who love eating well.",
    ),
    "music": (
        "For listeners, singers and bands of any size.",
        "Made for the sound of guitars, drums and strings.",
        "A tip from musicians and concert goers.",
        "Melody and rhythm all the way through.",
    ),
    "technology": (
        "For people who love gadgets, code and circuits.",
        "Software, sensors and clever machines inside.",
        "Picked by engineers and early adopters.",
        "Digital to the core, and fast.",
    ),
    "home": (
        "For those who furnish, repair and decorate.",
        "Walls, floors, lamps and shelves get their due.",
        "A tip for everyone who is doing up a flat.",
        "Makes the living room a better place.",
    ),
    "family": (
        "For parents and children of every age.",
        "Tested by toddlers, approved by grandparents.",
        "Keeps school kids busy for hours.",
        "Fits between bedtime story and breakfast.",
    ),
    "nature": (
        "For friends of forests, birds and wild places.",
        "Rivers, mountains and animals set the tone.",
        "A pick of rangers, gardeners and hikers.",
        "Best under open sky, among trees.",
    ),
    "history": (
        "For readers of archives, castles and old maps.",
        "Centuries of kings, ruins and inventions.",
        "A pick of curators and archaeologists.",
        "Brings the ancient past into the present.",
    ),
}

# Three axes of style, low end first; an item's style is told by one phrase of its title, most of the time.
STYLES = (("thrifty", "lavish"), ("calm", "lively"), ("classic", "novel"))


@dataclass(frozen=True)
class Domain:
    """How the items of one kind of scenario speak, come and go.

    Attributes:
        joint: what stands between the subject and the detail of a title.
        subjects: for each topic the things that a title can be about.
        details: for each axis of `STYLES` phrases for its low and for its high end.
        remarks: sentences that betray nothing.
        arrival_seconds: mean time between two new items.
        fading_seconds: how long an item keeps most of the appeal of being new.
        novelty: that appeal, in units of the click model's logit.
        rare_event: the strongest thing that a user does here.
    """

    joint: str
    subjects: dict[str, tuple[str, ...]]
    details: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    remarks: tuple[str, ...]
    arrival_seconds: float
    fading_seconds: float
    novelty: float
    rare_event: str


SHOP = Domain(
    joint=", ",
    subjects={
        "sport": ("Trail running shoe", "Road bike helmet", "Climbing rope", "Yoga mat", "Swim goggles", "Tennis bag"),
        "food": ("Cast iron pan", "Espresso maker", "Bread knife", "Spice set", "Pasta machine", "Olive oil trio"),
        "music": ("Acoustic guitar", "Vinyl record box", "Studio headphones", "Digital piano", "Ukulele", "Drum pad"),
        "technology": ("Wireless keyboard", "USB-C dock", "Smart watch", "Mini projector", "Router", "Action camera"),
        "home": ("Floor lamp", "Oak bookshelf", "Wool rug", "Wall paint", "Cordless drill", "Linen curtain"),
        "family": ("Wooden train set", "Pushchair", "Puzzle for two", "School backpack", "Baby carrier", "Board game"),
        "nature": ("Bird feeder", "Two-person tent", "Hiking poles", "Seed collection", "Binoculars", "Rain jacket"),
        "history": ("Replica globe", "Fountain pen", "Atlas of empires", "Model galleon", "Brass compass", "Chess set"),
    },
    details=(
        (("budget edition", "second hand", "on sale"), ("handmade", "limited edition", "with gold trim")),
        (("plain grey", "extra quiet", "soft touch"), ("neon colours", "for parties", "bold stripes")),
        (("heritage line", "like it used to be", "timeless"), ("this year's model", "prototype series", "app ready")),
    ),
    remarks=("Ships within two days.", "Thirty days to return it.", "One of three sizes.", "Comes in a recycled box."),
    arrival_seconds=20.0,
    fading_seconds=300.0,
    novelty=0.3,
    rare_event="purchase",
)

VIDEO = Domain(
    joint=": ",
    subjects={
        "sport": ("Marathon morning", "The last lap", "Bouldering basics", "Derby day", "Surf school", "Ring side"),
        "food": ("Street food in Osaka", "Sourdough week", "The noodle masters", "Grill club", "Knife skills"),
        "music": ("Garage band diaries", "Inside the opera", "Jazz at midnight", "One-take session", "Vinyl hunters"),
        "technology": ("Robots at work", "Chip wars", "Build a drone", "Inside the data centre", "Hello, world"),
        "home": ("Attic to loft", "Tiny house tour", "Restoring a chair", "Plaster and paint", "The tiling job"),
        "family": ("Bedtime cartoons", "School run", "Big sister, little brother", "Summer camp", "Puppet theatre"),
        "nature": ("Wolves of the north", "A year in the reef", "The beekeeper", "Glacier walk", "Garden at dawn"),
        "history": ("The lost fleet", "Rome in ten objects", "Castle builders", "Letters from 1914", "Silk roads"),
    },
    details=(
        (("shot on a phone", "no budget", "amateur cut"), ("the 4K special", "cinema cut", "with full orchestra")),
        (
            ("slow television", "an hour of calm", "in whispers"),
            ("fast and loud", "live from the crowd", "best of chaos"),
        ),
        (("remastered", "the old school way", "black and white"), ("first look", "pilot episode", "an experiment")),
    ),
    remarks=(
        "With subtitles in four languages.",
        "Part two follows soon.",
        "Recorded last month.",
        "Runs half an hour.",
    ),
    arrival_seconds=12.0,
    fading_seconds=180.0,
    novelty=0.5,
    rare_event="like",
)

NEWS = Domain(
    joint=" ",
    subjects={
        "sport": (
            "City marathon",
            "Football league",
            "Olympic committee",
            "Rowing final",
            "Cycling tour",
            "Goalkeeper",
        ),
        "food": ("Harvest report", "Restaurant guide", "Coffee price", "School canteen", "Bakery chain", "Cheese fair"),
        "music": ("Symphony hall", "Festival line-up", "Record label", "Choir contest", "Streaming chart", "Jazz club"),
        "technology": (
            "Chip maker",
            "Battery start-up",
            "Data leak",
            "Satellite launch",
            "Search engine",
            "Robot taxi",
        ),
        "home": ("Rent index", "Building permit", "Heating law", "Furniture maker", "Housing fair", "Timber price"),
        "family": ("Nursery plan", "Parental leave", "School holiday", "Playground", "Toy recall", "Birth rate"),
        "nature": ("Wolf pack", "River clean-up", "National park", "Storm front", "Bee census", "Forest fire"),
        "history": ("Roman villa", "Museum loan", "Shipwreck", "Archive find", "Castle repair", "Cave painting"),
    },
    details=(
        (("gets by on less", "free for everyone", "cuts its costs"), ("draws record sums", "sold for millions")),
        (("remains quiet for now", "ends in agreement"), ("stirs up the whole town", "sells out within hours")),
        (("returns after decades", "keeps an old promise"), ("breaks with tradition", "tries something new")),
    ),
    remarks=("Our reporter was there.", "Officials gave no comment.", "More in the evening edition.", "A short read."),
    arrival_seconds=4.0,
    fading_seconds=60.0,
    novelty=1.2,
    rare_event="share",
)

TRAVEL = Domain(
    joint=" ",
    subjects={
        "sport": ("Ski week", "Surf camp", "Cycling tour", "Sailing course", "Climbing weekend", "Golf stay"),
        "food": ("Wine tasting", "Cooking course", "Market walk", "Truffle hunt", "Cheese farm stay", "Tapas night"),
        "music": ("Opera night", "Festival pass", "Fado evening", "Jazz cruise", "Tango week", "Concert trip"),
        "technology": ("Science museum day", "Space centre visit", "Work and travel flat", "Robot hotel night"),
        "home": ("Design hotel", "Farmhouse to rent", "Canal boat", "Loft with a view", "Cottage by the sea"),
        "family": ("Theme park break", "Family resort", "Pony farm", "Petting zoo stay", "Beach club for kids"),
        "nature": ("Safari lodge", "Fjord walk", "Whale watching", "Desert camp", "Treehouse", "Birding trip"),
        "history": (
            "Overnight train",
            "Castle hotel",
            "Pilgrims' way",
            "Temple tour",
            "Old town walk",
            "Ruins by bike",
        ),
    },
    details=(
        (("on a shoestring to Porto", "by bus to Krakow"), ("first class to Singapore", "with butler in Dubai")),
        (("in silent Lapland", "off season on Crete"), ("in the heart of Bangkok", "at carnival in Rio")),
        (("from Vienna to Venice", "in grandmother's Lisbon"), ("where nobody has been yet", "opening in Tirana")),
    ),
    remarks=(
        "Breakfast is included.",
        "Free to cancel until Friday.",
        "Two nights at least.",
        "Groups of up to eight.",
    ),
    arrival_seconds=45.0,
    fading_seconds=600.0,
    novelty=0.2,
    rare_event="book",
)

SOCIAL = Domain(
    joint=", ",
    subjects={
        "sport": ("My first triathlon", "Gym diary", "Post-match talk", "Our Sunday ride", "Rehab week three"),
        "food": ("Grandma's dumplings", "Lunch box ideas", "I tried to bake", "Hot sauce ranking", "Vegan week"),
        "music": ("New demo track", "Open mic night", "Guitar riff of the day", "Our band broke up", "Mixtape swap"),
        "technology": (
            "My home server",
            "Keyboard build",
            "I taught a robot",
            "Weekend code project",
            "Phone teardown",
        ),
        "home": ("Balcony makeover", "Flat hunting", "Thrifted armchair", "Before and after", "I tiled a kitchen"),
        "family": ("Toddler logic", "Twins, year one", "Dad joke thread", "School play", "Homework survival"),
        "nature": ("Sunrise hike", "Rescue dog update", "Mushroom season", "My pond", "A fox came by"),
        "history": ("Old family photos", "This day in 1969", "Flea market find", "Museum selfie", "Tracing ancestors"),
    },
    details=(
        (("for under ten euros", "with what I had"), ("with no expense spared", "the luxury version")),
        (("to unwind", "a quiet thread"), ("and it escalated", "party edition")),
        (("the way we always did", "throwback"), ("a wild new idea", "nobody did this before")),
    ),
    remarks=("Thoughts?", "Comments are open.", "Sorry for the long post.", "Part one of a few."),
    arrival_seconds=6.0,
    fading_seconds=90.0,
    novelty=0.8,
    rare_event="like",
)

DOMAINS = {"shop": SHOP, "video": VIDEO, "news": NEWS, "travel": TRAVEL, "social": SOCIAL}
