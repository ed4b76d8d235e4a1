// Topic patterns: tokens between dots, `*` for one of them, `>` for one or more at the end.

/** Whether a topic fits a pattern. */
export function matches(pattern, topic) {
  const wanted = pattern.split(".");
  const given = topic.split(".");
  for (let index = 0; index < wanted.length; index++) {
    if (wanted[index] === ">") return given.length > index;
    if (index >= given.length) return false;
    if (wanted[index] !== "*" && wanted[index] !== given[index]) return false;
  }
  return wanted.length === given.length;
}
