"""The passwords that everyone tries first, in lower case; `sql.passwords` refuses them in any case.

A short list on purpose: with the lockout of the server an attacker has a few hundred guesses a day, and these are
the guesses. Entries shorter than the default minimum length are there for installations that lower it.
"""

from __future__ import annotations

_TEXT = """
    password password1 password12 password123 password1234 password! password1! password123! passw0rd p@ssw0rd
    p@ssword p@ssword1 passw0rd1 passw0rd! p@ssw0rd1 p@ssw0rd! p@ssw0rd123 pa$$word pa$$w0rd passwort passwort1
    mypassword newpassword oldpassword yourpassword testpassword rootpassword adminpassword userpassword
    letmein letmein1 letmein123 welcome welcome1 welcome12 welcome123 welcome! welcome1! hello123 hello1234
    changeme changeme1 changeme123 changeme! change_me default default1 default123 secret123 secret1234 topsecret
    admin admin1 admin12 admin123 admin1234 admin12345 administrator administrator1 root root123 root1234 rootroot
    toor superuser superuser1 sysadmin sysadmin1 adminadmin admin@123 test test123 test1234 testtest tester123
    guest guest123 guest1234 demo1234 user1234 username username1 temp1234 temporary
    123456 1234567 12345678 123456789 1234567890 12345678910 0123456789 0987654321 987654321 87654321 11111111
    00000000 22222222 33333333 55555555 66666666 77777777 88888888 99999999 12341234 11223344 112233445566 12121212
    123123123 123321123 13131313 147258369 159753456 123654789 abcd1234 abc12345 abcdefgh abcd12345 1234abcd
    a1234567 a12345678 a123456789 aa123456 aaaaaaaa asdf1234 asdfasdf asdfghjk asdfghjkl asdf1234! 1q2w3e4r 1q2w3e4r5t
    1qaz2wsx 1qaz2wsx3edc qazwsxedc qwer1234 qwerqwer qwerty qwerty1 qwerty12 qwerty123 qwerty1234 qwerty12345
    qwertyui qwertyuiop qwertz123 azertyui azerty123 zxcvbnm1 zxcvbnm123 zaq12wsx !qaz2wsx
    iloveyou iloveyou1 sunshine sunshine1 princess princess1 football football1 baseball baseball1 basketball
    superman superman1 batman123 starwars pokemon1 pokemon123 dragon123 monkey123 shadow123 master123 michael1
    jennifer jordan23 trustno1 computer computer1 internet internet1 whatever whatever1 corvette mercedes
    chocolate butterfly liverpool liverpool1 arsenal123 chelsea123 charlie1 samantha michelle jonathan
    summer2024 summer2025 summer2026 winter2024 winter2025 winter2026 spring2025 spring2026 autumn2025 autumn2026
    database database1 database123 postgres postgres1 postgresql mysql123 oracle123 headrace headrace1 headrace123
    kalamdb1 kalamdb123 server123 localhost localhost1
"""

COMMON_PASSWORDS = frozenset(_TEXT.split())
"""Compared after case folding, as a whole: `Password1` is refused, `Password1-of-the-mill` is not."""
