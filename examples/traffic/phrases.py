"""What customers and a desk write, in eight languages: the plaintexts of the recorded traffic.

Small lists with a few slots, so that two thousand messages read like a day at a customer desk without being
anybody's.
"""

# ruff: noqa: RUF001 # Turkish and Ukrainian have letters that look like others

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Language:
    """Phrases by their place in a conversation."""

    opening: tuple[str, ...]
    middle: tuple[str, ...]
    closing: tuple[str, ...]
    desk: tuple[str, ...]
    group: tuple[str, ...]


LANGUAGES: dict[str, Language] = {
    "en": Language(
        opening=(
            "Hi, I'm {name}. My order {order} still hasn't arrived.",
            "Hello! Is anybody there? It's about order {order}.",
            "Good morning, I'd like to change the address on {order}, please.",
        ),
        middle=(
            'The tracking page has said "in transit" since {day}.',
            "I paid {price} € for express delivery.",
            "The parcel was left with a neighbour in {city}, but nobody here has it.",
            "Could you send it to the shop in {city} instead?",
            "The box was open and one of the {count} lamps is broken 😕",
            "I'm attaching a photo of the label.",
            "Sorry, wrong number. It is {order}.",
            "Do I have to be at home on {day}?",
            "My flat is on floor {count}, the bell says {name}.",
            "Any news?",
            "ok",
            "Yes, exactly that one.",
        ),
        closing=(
            "Brilliant, thank you so much! 🙏",
            "That works. Have a nice {day}!",
            "Perfect, thanks. Bye!",
        ),
        desk=(
            "Hello {name}, thank you for writing. One moment, I'm looking at {order}.",
            "The parcel left {city} this morning and should be with you on {day}.",
            "We have sent a replacement; nothing to pay.",
            "I have refunded {price} €. It takes two or three days to show.",
        ),
        group=(
            "Who is at the stand in {city} on {day}?",
            "Count me in for {day} 👍",
            "The new price list starts at {price} €.",
            "Stock in {city}: {count} boxes left.",
        ),
    ),
    "de": Language(
        opening=(
            "Guten Tag, {name} hier. Wo bleibt meine Bestellung {order}?",
            "Hallo, es geht um {order}.",
            "Moin! Ich hätte eine Frage zur Rechnung {order}.",
        ),
        middle=(
            "Laut Sendungsverfolgung liegt das Paket seit {day} in {city}.",
            "Ich habe {price} € überwiesen, der Beleg kommt gleich.",
            "Könnten Sie die Größe ändern? {count} statt {count}.",
            "Der Karton war aufgerissen, ein Teil fehlt 😕",
            "Am {day} bin ich ab 16 Uhr zu Hause.",
            "Bitte bei der Nachbarin im {count}. Stock abgeben.",
            "Entschuldigung, die richtige Nummer ist {order}.",
            "Ja, genau.",
            "Und was ist mit dem Gutschein über {price} €?",
            "Gibt es schon etwas Neues?",
            "Die Straße heißt jetzt Süderstraße, früher Mühlenweg.",
        ),
        closing=(
            "Super, vielen Dank! 😊",
            "Alles klar, schönen {day} noch!",
            "Danke für die schnelle Hilfe.",
        ),
        desk=(
            "Guten Tag {name}, ich sehe mir {order} gleich an.",
            "Das Paket ist heute in {city} angekommen und wird am {day} zugestellt.",
            "Wir haben Ihnen {price} € gutgeschrieben.",
            "Ersatz ist unterwegs, Sie müssen nichts zurückschicken.",
        ),
        group=(
            "Wer ist am {day} in {city} dabei?",
            "Ich bringe {count} Kartons mit.",
            "Die Lieferung kommt erst am {day}.",
            "Neuer Preis ab Montag: {price} €.",
        ),
    ),
    "fr": Language(
        opening=(
            "Bonjour, c'est {name}. Je n'ai toujours pas reçu la commande {order}.",
            "Bonsoir, une question sur {order} s'il vous plaît.",
        ),
        middle=(
            "Le suivi indique {city} depuis {day}…",
            "J'ai payé {price} € par carte.",
            "Il manque {count} pièces dans le colis.",
            "Pouvez-vous le déposer au point relais de {city} ?",
            "Désolée, le bon numéro est {order}.",
            "Oui, c'est bien ça.",
            "L'écran est fêlé 😢",
            "Je suis chez moi {day} après-midi.",
            "Vous êtes là ?",
        ),
        closing=("Parfait, merci beaucoup !", "Très bien, bonne journée 🌞"),
        desk=(
            "Bonjour {name}, je regarde {order} tout de suite.",
            "Le colis sera livré {day} à {city}.",
            "Nous vous remboursons {price} €.",
        ),
        group=("Qui vient à {city} {day} ?", "Il reste {count} cartons.", "Je serai là {day} 👍"),
    ),
    "es": Language(
        opening=(
            "Hola, soy {name}. ¿Dónde está mi pedido {order}?",
            "¡Buenos días! Quería cambiar la dirección del pedido {order}.",
        ),
        middle=(
            "En el seguimiento pone {city} desde el {day}.",
            "Pagué {price} € con tarjeta.",
            "Llegó abierto y faltan {count} piezas.",
            "¿Pueden entregarlo el {day} por la tarde?",
            "Perdón, el número correcto es {order}.",
            "Sí, eso es.",
            "¿Hay novedades?",
            "Mi vecina de la {count}.ª planta puede recogerlo.",
        ),
        closing=("¡Genial, muchas gracias! 😀", "Perfecto, ¡hasta luego!"),
        desk=(
            "Hola {name}, ahora mismo miro el pedido {order}.",
            "El paquete salió de {city} y llega el {day}.",
            "Le devolvemos {price} €.",
        ),
        group=("¿Quién va a {city} el {day}?", "Quedan {count} cajas.", "Yo voy 🙋"),
    ),
    "tr": Language(
        opening=(
            "Merhaba, ben {name}. {order} numaralı siparişim gelmedi.",
            "İyi günler, {order} hakkında yazıyorum.",
        ),
        middle=(
            "Kargo {day} gününden beri {city} şubesinde görünüyor.",
            "{price} € ödedim, dekontu gönderiyorum.",
            "Kutudan {count} parça eksik çıktı.",
            "{day} günü evdeyim.",
            "Pardon, doğru numara {order}.",
            "Evet, aynen öyle.",
            "Bir gelişme var mı?",
        ),
        closing=("Çok teşekkür ederim! 🙏", "Süper, iyi çalışmalar."),
        desk=(
            "Merhaba {name}, {order} siparişinize bakıyorum.",
            "Paketiniz {day} günü {city} adresinde olacak.",
        ),
        group=("{day} günü {city} toplantısına kim geliyor?", "{count} koli kaldı.", "Ben geliyorum 👍"),
    ),
    "pl": Language(
        opening=(
            "Dzień dobry, tu {name}. Gdzie jest moja paczka {order}?",
            "Witam, piszę w sprawie {order}.",
        ),
        middle=(
            "Od dnia: {day} status się nie zmienił, wciąż {city}.",
            "Zapłaciłem {price} € za przesyłkę.",
            "Brakuje {count} części, pudełko było otwarte.",
            "Przepraszam, właściwy numer to {order}.",
            "Tak, zgadza się.",
            "Czy coś już wiadomo?",
            "Proszę zostawić u sąsiadki, piętro {count}.",
        ),
        closing=("Świetnie, bardzo dziękuję! 😊", "W porządku, miłego dnia!"),
        desk=("Dzień dobry {name}, sprawdzam {order}.", "Zwracamy {price} €, proszę o chwilę cierpliwości."),
        group=("Kto będzie w {city}? Termin: {day}.", "Zostało {count} kartonów.", "Będę 👍"),
    ),
    "uk": Language(
        opening=("Добрий день, це {name}. Де моє замовлення {order}?", "Вітаю! Питання щодо {order}."),
        middle=(
            "Статус не змінюється, останнє місце: {city}.",
            "Я сплатила {price} €.",
            "У коробці бракує {count} деталей.",
            "Вибачте, правильний номер {order}.",
            "Так, саме він.",
            "Є якісь новини?",
        ),
        closing=("Щиро дякую! 💙💛", "Чудово, гарного дня!"),
        desk=("Вітаємо, {name}! Перевіряю {order}.", "Повертаємо вам {price} €."),
        group=("Хто буде у місті {city}?", "Залишилося {count} коробок.", "Я буду 👍"),
    ),
    "ja": Language(
        opening=(
            "こんにちは、{name}です。注文{order}がまだ届きません。",
            "お世話になります。{order}の件です。",
        ),
        middle=(
            "追跡では{city}のままになっています。",
            "{price}ユーロを支払いました。",
            "箱の中で{count}個壊れていました。",
            "すみません、正しい番号は{order}です。",
            "はい、それです。",
            "その後いかがでしょうか。",
        ),
        closing=("ありがとうございました😊", "助かりました。失礼します。"),
        desk=("{name}様、{order}を確認いたします。", "{city}から本日発送いたしました。"),
        group=("{city}には誰が行きますか。", "残り{count}箱です。", "参加します👍"),
    ),
}

NAMES = (
    "Anna",
    "Mehmet",
    "Chloé",
    "Íñigo",
    "Zofia",
    "Олена",
    "Yuki",
    "Søren",
    "Maja",
    "Léa",
    "Paul",
    "Rosa",
    "Ömer",
)
CITIES = ("Köln", "Lyon", "Kraków", "İzmir", "València", "Leeds", "Київ", "Graz", "Malmö", "Oporto", "大阪")
DAYS = {
    "en": ("Monday", "Tuesday", "Thursday", "Saturday"),
    "de": ("Montag", "Dienstag", "Donnerstag", "Samstag"),
    "fr": ("lundi", "mardi", "jeudi", "samedi"),
    "es": ("lunes", "martes", "jueves", "sábado"),
    "tr": ("pazartesi", "salı", "perşembe", "cumartesi"),
    "pl": ("poniedziałek", "wtorek", "czwartek", "sobota"),
    "uk": ("понеділок", "вівторок", "четвер", "субота"),
    "ja": ("月曜日", "火曜日", "木曜日", "土曜日"),
}


class Writer:
    """One person: a name, a language and an order. Seeded, so that a recording's plan can be made again."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.code = random.choice(list(LANGUAGES))
        self.language = LANGUAGES[self.code]
        self.name = random.choice(NAMES)
        self.order = f"{random.choice('ABKN')}-{random.randrange(10_000, 99_999)}"

    def opening(self) -> str:
        return self._write(self.language.opening)

    def middle(self) -> str:
        return self._write(self.language.middle)

    def closing(self) -> str:
        return self._write(self.language.closing)

    def desk(self) -> str:
        return self._write(self.language.desk)

    def group(self) -> str:
        return self._write(self.language.group)

    def _write(self, phrases: tuple[str, ...]) -> str:
        return self.random.choice(phrases).format(
            name=self.name,
            order=self.order,
            city=self.random.choice(CITIES),
            day=self.random.choice(DAYS[self.code]),
            price=self.random.randrange(5, 240),
            count=self.random.randrange(2, 12),
        )
