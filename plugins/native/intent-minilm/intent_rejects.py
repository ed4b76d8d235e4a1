"""Things that people say to an assistant and that no tool is meant by, one a line.

They are what the matcher learns to reject, beside the near misses in manifests. General on purpose:
small talk, knowledge, other devices. A tool that serves one of them is learned from its own
examples, which lie nearer to what is asked of it.
"""

from __future__ import annotations

REJECTED = """\
Hello there.
Good morning.
How are you today?
What is your name?
Who are you?
Tell me a joke.
Tell me something nice.
Thank you very much.
You are great.
Goodbye.
Stop.
Yes please.
No, that is wrong.
Okay.
Be quiet.
Say that again.
What can you do?
I am bored.
I feel sad today.
I love this song.
It was a nice holiday.
My day at school was hard.
Who was Napoleon?
Who wrote Hamlet?
What is the meaning of life?
Why do cats purr?
How does a fridge work?
What is the capital of Spain?
When did the war end?
Where is Mount Everest?
How old is the president?
How tall is the Eiffel Tower?
How many planets are there?
How many people live in Tokyo?
What does this word mean?
How do you say hello in German?
Translate thank you into Spanish.
How do you spell beautiful?
Give me a recipe for pancakes.
How long do I cook rice?
Write a poem about the sea.
Sing a song for me.
Play some jazz.
Play the next song.
Pause the music.
Turn the volume down.
Make it louder.
Turn on the lights in the kitchen.
Switch off the heating.
Set the thermostat to 20 degrees.
Dim the lamp to fifty percent.
Lock the front door.
Call my mother.
Phone the office.
Send an email to Peter.
Text Maria that I am on my way.
Read my messages.
Do I have new emails?
Book a table for two.
Order a taxi.
Buy tickets for the cinema.
Add a meeting to my calendar.
What is on my calendar tomorrow?
When is my next appointment?
Open the camera.
Take a picture.
Start the vacuum cleaner.
Feed the dog.
Navigate to the station.
How do I get home?
How far is it to London?
Where is the nearest pharmacy?
What is the price of gold?
How is the stock market doing?
Who won the game last night?
What is the latest news?
Recommend a good film.
What should I wear?
What should I cook tonight?
I like sunny days.
The weather was awful last week.
I have no time.
Time flies.
Notes are useful.
I hate maths.
Is two a prime number?
What is a kilometre?
What is the best time to plant roses?
How long is a football match?
Do you like me?
Can you dance?
What do you think about politics?
Are you a robot?
Flip a coin.
Roll a dice.
Pick a random number.
Repeat after me.
Tell me about yourself.
Explain quantum physics.
Summarise this book.
Help me with my homework.
Find my phone.
Show me pictures of cats.
Increase the brightness.
Restart the computer.
What colour is the sun?
Is it healthy to eat eggs?
Should I buy a house?
I need a new car.
Let's play a game.
Open the window.
Close the garage.
Delete my account.
Cancel my subscription.
Wish me luck.
Happy birthday.
That was funny.
I don't know.
My brother is good at maths.
The clock on the wall is broken.
He wrote a song about the rain.
She always takes notes in class.
The internet was down yesterday.
That film was two hours long.
It is five kilometres from my house.
They never agree on the time.
Somebody left a letter on the table.
The forecast was wrong again.
""".splitlines()
