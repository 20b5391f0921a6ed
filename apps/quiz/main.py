"""A quiz: the host asks, everybody answers, the bars grow.

    run quiz --all

The host types a question and its choices in one line, with bars between them: `Capital of Peru? | Lima | Cusco | Quito`. A star marks
the right one: `| *Lima`. Everybody types a letter, and may change his mind until the host types an empty line, which shows who was
right. `score` shows the points, Ctrl-D ends the quiz for all.
"""

import p2p

LETTERS = "abcdefgh"
WIDTH = 30                 # cells of the longest bar


class Question(p2p.Message):
    number: int
    text: str
    choices: list


class Vote(p2p.Message):
    number: int
    choice: int


class Solution(p2p.Message):
    lines: list


def parsed(line):
    """(question, choices, index of the right one or None) of what the host typed, or None where it is no question."""
    question, *choices = [part.strip() for part in line.split("|")]
    right = next((at for at, choice in enumerate(choices) if choice.startswith("*")), None)
    choices = [choice.lstrip("*").strip() for choice in choices]
    if not question or not 2 <= len(choices) <= len(LETTERS) or not all(choices):
        return None
    return question, choices, right


def bars(choices, votes, right=None):
    """A line for each choice; `votes`: {voter: choice}."""
    counts = [list(votes.values()).count(at) for at in range(len(choices))]
    most, wide = max(counts) or 1, max(map(len, choices))
    return [f"  {LETTERS[at]}) {choice.ljust(wide)} {'#' * (WIDTH * counts[at] // most)} {counts[at]}{'  <- right' if at == right else ''}"
            for at, choice in enumerate(choices)]


class Host:
    """The host's part: what is asked, who has said what, who has how many points."""

    def __init__(self):
        self.number = 0
        self.current = None
        self.votes = {}
        self.points = {}

    def ask(self, line):
        found = parsed(line)
        if found is None:
            app.print("Question? | choice | *right choice | choice ...: two to eight choices")
            return
        self.solve()
        self.number += 1
        self.current, self.votes = found, {}
        question = Question(self.number, found[0], found[1])
        app.broadcast(question)
        show(question)
        app.print("An empty line shows the solution.")

    def vote(self, voter, vote):
        if self.current and vote.number == self.number and 0 <= vote.choice < len(self.current[1]):
            self.votes[voter] = vote.choice
            app.print("\n".join(bars(self.current[1], self.votes)))

    def solve(self):
        if not self.current:
            return
        question, choices, right = self.current
        self.current = None
        lines = [question] + bars(choices, self.votes, right)
        if right is not None:
            good = [voter for voter, choice in self.votes.items() if choice == right]
            for voter in good:
                self.points[voter] = self.points.get(voter, 0) + 1
            lines.append("Right: " + (", ".join(sorted(voter.name for voter in good)) or "nobody"))
        self.tell(lines)

    def tell(self, lines):
        app.broadcast(Solution(lines))
        app.print("\n".join(lines))

    def score(self):
        ranked = sorted(self.points.items(), key=lambda pair: (-pair[1], pair[0].name))
        self.tell(["Points:"] + [f"  {points:3} {voter.name}" for voter, points in ranked] if ranked else ["No points yet."])


def show(question):
    app.print(f"\n{question.number}. {p2p.clean(question.text, 400)}")
    for at, choice in enumerate(question.choices[:len(LETTERS)]):
        app.print(f"  {LETTERS[at]}) {p2p.clean(str(choice), 200)}")


def typed(host, question, text):
    """A line of the user; the host's lines are questions, unless they are one letter."""
    if question and len(text) == 1 and text.lower() in LETTERS[:len(question.choices)]:
        vote = Vote(question.number, LETTERS.index(text.lower()))
        if host:
            host.vote(app.me, vote)
        else:
            app.send(app.host, vote)
            app.print(f"You said {text.lower()}. Another letter changes that.")
    elif not host:
        app.print("A letter, please." if question else "Wait for a question.")
    elif not text:
        host.solve()
    elif text == "score":
        host.score()
    else:
        host.ask(text)


app = p2p.attach("quiz")
host = Host() if app.is_host else None
app.print("Type: Question? | choice | *right choice" if host else f"{app.host.name} asks. Answer with a letter.")
question = None
for event in app:
    if isinstance(event, Question) and event.sender is app.host:
        question = event
        show(event)
    elif isinstance(event, Solution) and event.sender is app.host:
        for line in event.lines[:100]:
            app.print(p2p.clean(str(line), 400))
    elif isinstance(event, Vote) and host:
        host.vote(event.sender, event)
    elif isinstance(event, p2p.Line):
        if host and host.current:
            question = Question(host.number, host.current[0], host.current[1])
        typed(host, question, event.text.strip())
    elif isinstance(event, (p2p.Join, p2p.Leave)):
        app.print(f"* {event.sender.name} {event.verb}")
        if isinstance(event, p2p.Leave) and event.sender is app.host:
            app.quit()
    elif isinstance(event, p2p.Eof):
        if host:
            app.end()
        app.quit()
