"""Noughts and crosses for two: `run tictactoe bob`. Type the number of a square; whoever else takes part watches. Ctrl-D leaves.

The host keeps the game and tells it as shared state, so it is the same at everybody, and who comes late sees it at once. A move is a
message to the host, who looks whether it fits: two who move at once cannot both have moved.
"""

import p2p

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def winner(board):
    """"X", "O", "nobody" for a full board, or None while it goes on."""
    for first, second, third in LINES:
        if board[first] != " " and board[first] == board[second] == board[third]:
            return board[first]
    return None if " " in board else "nobody"


def moved(game, player, square):
    """The game after a move, or None where it is not this player's turn or not a free square."""
    board = game["board"]
    mark = "XO"[board.count("X") > board.count("O")]
    if winner(board) or game["players"]["XO".index(mark)] != player or not 0 <= square < 9 or board[square] != " ":
        return None
    return dict(game, board=board[:square] + mark + board[square + 1:])


def is_game(value):
    """Is this a game? Everybody in the session can share something under its name."""
    return (isinstance(value, dict) and isinstance(value.get("board"), str) and len(value["board"]) == 9 and not value["board"].strip("XO ")
            and isinstance(value.get("players"), list) and len(value["players"]) == 2)


def picture(board):
    rows = ["|".join(f" {board[at] if board[at] != ' ' else at + 1} " for at in range(row, row + 3)) for row in (0, 3, 6)]
    return "\n---+---+---\n".join(rows)


class Move(p2p.Message):
    square: int


def new_game(first, second):
    return {"board": " " * 9, "players": [first, second]}


def show(game):
    names = {peer.id: peer.name for peer in [app.me, *app.peers]}
    board, players = game["board"], game["players"]
    app.print("\n" + picture(board))
    won = winner(board)
    if won is not None:
        text = "Nobody wins." if won == "nobody" else f"{names.get(players['XO'.index(won)], won)} wins."
        app.print(text + (" Enter: once more." if app.me.id in players else ""))
        return
    turn = "XO"[board.count("X") > board.count("O")]
    whose = players["XO".index(turn)]
    app.print(f"You are {turn}: which square?" if whose == app.me.id else f"{names.get(whose, 'somebody')} ({turn}) moves.")


def begin(other):
    game = new_game(app.me.id, other.id)
    app.share("game", game)
    return game


def play():
    game = None                # the host's word alone: what others share under this name is not looked at
    if app.is_host and app.peers:
        game = begin(app.peers[0])
    elif app.is_host:
        app.print("Waiting for somebody to play with: `run tictactoe NODE` asks them.")
    for event in app:
        if isinstance(event, p2p.Change):
            if event.sender is app.host and event.key == "game" and is_game(event.value):
                game = event.value
                show(game)
        elif isinstance(event, p2p.Join) and app.is_host and game is None:
            game = begin(event.sender)
        elif isinstance(event, p2p.Leave):
            app.print(f"* {event.sender.name} left")
            if event.sender is app.host or game and event.sender.id in game["players"]:
                app.print("The game is over.")
                app.quit()
        elif isinstance(event, p2p.Eof):
            app.quit()
        elif isinstance(event, p2p.Line) and game:
            typed(game, event.text.strip())
        elif isinstance(event, Move) and app.is_host and game:
            after = moved(game, event.sender.id, event.square)
            if event.square == AGAIN and winner(game["board"]) and event.sender.id in game["players"]:
                after = new_game(*reversed(game["players"]))
            if after:
                game = after
                app.share("game", game)


AGAIN = -1                 # instead of a square: a new game


def typed(game, text):
    if app.me.id not in game["players"]:
        app.print("You are watching.")
    elif winner(game["board"]) and not text:
        app.send(app.host, Move(AGAIN))
    elif text.isdigit() and moved(game, app.me.id, int(text) - 1):
        app.send(app.host, Move(int(text) - 1))
    else:
        app.print("It is not your turn." if text.isdigit() and 1 <= int(text) <= 9 and game["board"][int(text) - 1] == " "
                  else "A number of a free square, please.")


app = p2p.attach("tictactoe")
play()
