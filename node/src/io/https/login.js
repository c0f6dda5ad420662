"use strict";
// The secret never leaves the fragment but in this one request, and not the history either.
const word = document.getElementById("word");
const secret = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

async function logIn() {
  if (!secret) {
    word.textContent = "To log in, run 'kubebus page' at the node and open the link that it prints.";
    return;
  }
  const answer = await fetch("/page/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ secret }),
  });
  if (answer.ok) {
    location.replace("/");
    return;
  }
  const told = await answer.json().catch(() => ({}));
  word.textContent = told.error || "The node refused the link.";
}

logIn().catch(() => {
  word.textContent = "The node does not answer; try the link again.";
});
