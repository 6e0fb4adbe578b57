"""Words to draw: real ones of nine languages, names, numbers, and made-up ones, so that there is no end of them.

What is drawn has no quotation marks or apostrophes: a caption puts it in straight quotes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sampan.synthetic.signs.split import is_test_word

_REAL = """
open closed exit entrance hotel bakery coffee market garden school library museum station airport harbour bridge river
forest mountain island village castle church street avenue square corner welcome danger caution stop slow keep push pull
private public parking taxi ticket music dance theatre cinema summer winter spring autumn monday friday sunday morning
evening night today tomorrow fresh organic bread butter cheese honey apple cherry lemon orange peach melon berry tomato
pepper garlic onion salad soup pasta pizza burger noodle rice fish chicken tea juice water milk sugar salt chocolate candy
flowers books toys shoes hats jewels gifts tools paint wood stone iron gold silver copper glass paper cotton silk wool lost
found north south east west left right up down fast quiet loud happy bright lucky brave gentle wild golden little grand
royal modern vintage classic special best new sale free half price offer deal cash only members staff guests no smoking
swimming fishing camping cycling running sailing boats bikes trains horse tiger rabbit fox owl eagle whale dolphin kitten

aberto fechado saída entrada padaria farmácia café pão queijo manhã noite amanhã verão inverno primavera outono praia
coração canção irmão avó avô maçã limão pêssego melão maracujá feijão açúcar água leite peixe frango cerveja vinho livraria
estação aeroporto ônibus trem bicicleta avião barco ilha montanha floresta jardim igreja praça rua avenida atenção perigo
proibido silêncio bem-vindo promoção desconto grátis amanhecer saudade alegria música dança cinema pássaro borboleta
tubarão leão cachorro gato cavalo galinha bom dia obrigado feliz você nós também três seis dez cem lâmpada relógio espelho

ouvert fermé sortie entrée boulangerie pâtisserie fromage poisson légumes crème brûlée gâteau forêt rivière château église
école bibliothèque musée gare théâtre cinéma été hiver printemps automne matin soirée demain toujours jamais bientôt bonne
nuit merci santé liberté égalité fraternité beauté lumière étoile soleil lune ciel neige pluie tempête île plage montagne
garçon fille mère père frère sœur bébé hôtel hôpital pharmacie marché épicerie fraîche pêche pomme poire cerise raisin
citron thé lait beurre œuf bœuf poulet pâtes réservé défense passage piétons interdit vélo bateau cheval chèvre hérisson

geöffnet geschlossen ausgang eingang bäckerei apotheke straße brücke schloß kirche schule bücherei museum bahnhof flughafen
wald fluß berg insel dorf größe grüße frühling sommer herbst winter morgen abend nacht schön süß heiß kalt käse brötchen
gemüse äpfel kirschen würstchen kuchen hähnchen fisch wasser milch zucker salz kaffee tee bier wein blumen bücher schuhe
müll vorsicht gefahr halt langsam drücken ziehen frei besetzt überall natürlich fröhlich glück träume möwe bär vögel löwe
kätzchen jäger könig königin mädchen brüder rößl gasthof biergarten weihnachten ermäßigung angebot heute geöffnet täglich

abierto cerrado salida entrada panadería farmacia café pan queso mañana noche verano invierno primavera otoño playa corazón
canción niño niña señor señora montaña río jardín iglesia plaza calle avenida atención peligro prohibido silencio bienvenido
oferta rebajas gratis alegría música baile jamón limón melón piña azúcar agua leche pescado pollo cerveza vino librería
estación aeropuerto autobús tren bicicleta avión barco isla bosque pájaro mariposa tiburón león perro gato caballo gallina
pingüino cigüeña buenos días gracias feliz también tres seis diez cien lámpara reloj espejo árbol montañas español mediodía

otwarte zamknięte wyjście wejście piekarnia apteka kawiarnia chleb ser masło jabłko wiśnia gruszka śliwka żurek pierogi łosoś
kurczak herbata mleko cukier sól woda piwo wino kwiaty książki buty ulica rynek most rzeka góra las jezioro wyspa zamek
kościół szkoła muzeum dworzec lotnisko pociąg rower łódź samolot wiosna lato jesień zima dzień noc jutro dziś zawsze nigdy
uwaga niebezpieczeństwo stój cisza gość dziękuję miłość szczęście gwiazda księżyc słońce śnieg deszcz żaba źrebię niedźwiedź
jeż wąż sowa orzeł motyl świnia koń złoto srebro żelazo drewno szkło papier kraków gdańsk poznań wrocław toruń

aperto chiuso uscita entrata panificio farmacia caffè formaggio prosciutto gelato gelateria pizzeria trattoria città
università libertà felicità perché così domani mattina sera notte estate inverno primavera autunno spiaggia cuore canzone
bosco fiume isola montagna chiesa piazza strada pericolo attenzione vietato silenzio benvenuti sconto gratis gioia mela pera
ciliegia limone arancia zucchero acqua latte pesce pollo birra vino libri scarpe fiori stella luna sole neve pioggia lupo

öppet stängt utgång ingång bageri apotek kafé bröd smör ost äpple körsbär fisk kyckling mjölk socker vatten öl blommor böcker
skor gata torg bro flod berg skog sjö ö slott kyrka skola museum station flygplats tåg cykel båt vår sommar höst vinter dag
natt imorgon alltid fara varning långsamt tyst välkommen tack kärlek lycka stjärna måne sol snö regn björn älg räv uggla få
hus hjärta vänner blåbär jordgubbar smörgås köttbullar lördag söndag åska ängel kött gräs grön blå röd gul svart vit

açık kapalı çıkış giriş fırın eczane kahve ekmek peynir tereyağı elma kiraz şeftali balık tavuk süt şeker tuz su çay çiçek
kitap ayakkabı sokak çarşı köprü nehir dağ orman göl ada kale okul müze istasyon otobüs gemi uçak ilkbahar yaz sonbahar kış
gün gece yarın dikkat tehlike yavaş sessiz hoşgeldiniz teşekkür aşk mutluluk yıldız güneş kar yağmur ayı kuş köpek aslan
"""
_NAMES = """
Ana Zoë Émile José Łukasz Søren Björn Müller García López Núñez Dvořák Škoda Čapek Kowalski Nowak Silva Souza Conceição
Gonçalves Araújo Antônio Inês João Márcio Renée Chloé André Thérèse Hélène François Jürgen Jörg Günther Käthe Björk Åsa Øyvind
Zürich Köln München Düsseldorf Lisboa Porto Coimbra Recife Maceió Goiânia Málaga Cádiz Bogotá Medellín Orléans Nîmes Genève
Lübeck Brno Plzeň Košice Győr Pécs Kraków Łódź Gdynia Århus Malmö Tromsø Reykjavík İzmir Ankara Rīga Jūrmala Šiauliai Tartu
Paris London Berlin Madrid Roma Oslo Praha Wien Bern Dublin Athens Vienna Boston Denver Austin Nevada Oregon Quito Lima Cusco
Smith Jones Taylor Brown Davies Evans Parker Turner Cooper Harris Martin Walker Oliver Emma Noah Mia Lucas Nina Hugo Clara
"""
REAL = tuple(dict.fromkeys(_REAL.split()))
NAMES = tuple(dict.fromkeys(_NAMES.split()))

_ONSETS = (*"bcdfghjklmnprstvwzçñłśžš", "br", "cl", "dr", "fl", "gr", "pl", "sk", "st", "tr", "vr", "ch", "sh")
_VOWELS = (*"aeiouaeiouáéíóúâêôãõàèäöüåøæęą", "ai", "ei", "ou", "io")
_CODAS = ("", "", "", "", "n", "r", "l", "s", "t", "m", "x", "nd", "rk", "ß", "ń", "ř")
_CONSONANTS = "BCDFGHJKLMNPQRSTVWXYZ"
_SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"
_CURRENCIES = ("€{}", "${}", "£{}", "R${}", "{}€", "{} zł", "{} kr")


class WordSource:
    """An endless source of words, all of training or all of the test, or of both.

    Args:
        is_test: True for words that no training picture shows, False for the others, None for all.
    """

    def __init__(self, is_test: bool | None):
        self.is_test = is_test
        self._real = tuple(word for word in REAL if self._fits(word))
        self._names = tuple(word for word in NAMES if self._fits(word))

    def _fits(self, text: str) -> bool:
        return self.is_test is None or all(is_test_word(word) == self.is_test for word in text.split(" "))

    def draw(self, random: np.random.Generator, most_letters: int, least_letters: int = 1) -> str:
        """Return a word within lengths, in the case it is written in (real and made-up ones small)."""
        while True:
            kind = random.random()
            if kind < 0.5:
                word = self._real[int(random.integers(len(self._real)))]
            elif kind < 0.6:
                word = self._names[int(random.integers(len(self._names)))]
            elif kind < 0.8:
                word = made_up(random)
            elif kind < 0.9:
                word = number(random)
            else:
                word = random_signs(random, most_letters)
            if least_letters <= len(word) <= most_letters and self._fits(word):
                return word


def small(text: str) -> str:
    """Return a text in small letters; İ becomes an i without a second dot, which no font here has."""
    return text.lower().replace("\u0307", "")


def made_up(random: np.random.Generator) -> str:
    """Return a word of one to four syllables that can be said and means nothing."""
    syllables = []
    for _ in range(1 + int(random.integers(1, 4))):
        onset, vowel, coda = (_pick(random, part) for part in (_ONSETS, _VOWELS, _CODAS))
        syllables.append(onset + vowel + coda)
    return "".join(syllables)


def number(random: np.random.Generator) -> str:
    """Return a number as signs have them: a count, a price, a time, a date, a share, a plate or a telephone number."""
    kind, few, many = int(random.integers(8)), int(random.integers(1, 100)), int(random.integers(100, 10_000))
    if kind == 0:
        return str(few)
    if kind == 1:
        return str(many)
    if kind == 2:
        point = "." if random.random() < 0.5 else ","
        return _pick(random, _CURRENCIES).format(f"{few}{point}{int(random.integers(100)):02}")
    if kind == 3:
        return f"{few % 24}:{int(random.integers(60)):02}"
    if kind == 4:
        return f"{few}%"
    if kind == 5:
        return f"{1 + few % 28}/{1 + many % 12}"
    if kind == 6:
        letters = "".join(_pick(random, _CONSONANTS) for _ in range(2))
        return f"{letters}-{many}"
    return f"{int(random.integers(1900, 2100))}"


def random_signs(random: np.random.Generator, most: int) -> str:
    """Return letters and digits without any order, of 2 to `most` signs and at most 10."""
    length = int(random.integers(2, max(3, min(10, most) + 1)))
    return "".join(_SIGNS[i] for i in random.integers(0, len(_SIGNS), length))


def _pick(random: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(random.integers(len(options)))]
