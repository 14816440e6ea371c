"""The texts of the pages that links in mails lead to, by locale."""

from referral.core.entities.users import Locale

TEXTS = {
    Locale.EN: {
        "home_link": "Continue to the home page",
        "account_label": "Account",
        "confirm_title": "Confirm your e-mail address",
        "confirm_explanation": "Enter the password of the account. It shows that the account is "
        "yours.",
        "confirm_label": "Password",
        "confirm_button": "Confirm address",
        "wrong_password": "This is not the password of the account.",
        "forgotten_link": "Forgot your password?",
        "disown_summary": "I did not create this account",
        "disown_explanation": "Delete the account if somebody else registered with your address. "
        "This cannot be undone.",
        "disown_button": "Delete the account",
        "disowned_title": "The account is deleted",
        "disowned_message": "You will get no more mail about it.",
        "confirmed_title": "Your e-mail address is confirmed",
        "confirmed_message": "Nothing is left to do. You can close this page.",
        "confirm_link_missing_title": "Open the link in your mail",
        "confirm_link_missing_message": "You confirm your address with the link in the mail that "
        "you got after registration. Copy the whole link if your mail program has cut it. It is "
        "valid for 24 hours; after that, log in where you registered and request a new mail.",
        "reset_title": "Choose a new password",
        "reset_label": "New password",
        "reset_hint": "At least 8 characters",
        "reset_button": "Set password",
        "reset_cancel": "Keep the old password and continue to the home page",
        "password_set_title": "Your password is set",
        "password_set_message": "You can log in now. All other sessions have ended.",
        "reset_link_missing_title": "Request a link for a new password",
        "reset_link_missing_message": "Where you log in, say that you forgot your password. You "
        "get a mail with a link that is valid for an hour. If you have the mail already, copy the "
        "whole link: your mail program may have cut it.",
        "unusable_title": "This link cannot be used",
        "unusable_message": "It was used before, has expired or is incomplete. If you have "
        "confirmed your address or set your password with it, nothing is left to do. Otherwise "
        "request a new one where you registered.",
        "too_many_requests_title": "Too many requests",
        "too_many_requests_message": "Go back and try again in {seconds} seconds. Your link is "
        "still valid.",
        "weak_password": "This password is too short, too long, too common, or the first part of "
        "your e-mail address. Choose another.",
        "unavailable_title": "This does not work at the moment",
        "unavailable_message": "Try again in a few seconds. Your link is still valid.",
        "unsubscribe_title": "Turn off mails about new referrals?",
        "unsubscribe_explanation": "You will get no more mail when somebody joins with your code. "
        "Mails about your account still arrive.",
        "unsubscribe_button": "Turn off",
        "unsubscribe_cancel": "Keep them and continue to the home page",
        "unsubscribed_title": "Mails about new referrals are off",
        "unsubscribed_message": "You can turn them on again in your account at any time.",
        "unsubscribe_unusable_title": "This link cannot be used",
        "unsubscribe_unusable_message": "It is incomplete, or the account no longer exists. Copy "
        "the whole link: your mail program may have cut it.",
    },
    Locale.RU: {
        "home_link": "Перейти на главную страницу",
        "account_label": "Учётная запись",
        "confirm_title": "Подтвердите адрес электронной почты",
        "confirm_explanation": "Введите пароль учётной записи, чтобы показать, что она ваша.",
        "confirm_label": "Пароль",
        "confirm_button": "Подтвердить адрес",
        "wrong_password": "Это не пароль этой учётной записи.",
        "forgotten_link": "Забыли пароль?",
        "disown_summary": "Эту учётную запись создал другой человек",
        "disown_explanation": "Если вы не регистрировались, удалите учётную запись с вашим "
        "адресом. Удаление нельзя отменить.",
        "disown_button": "Удалить учётную запись",
        "disowned_title": "Учётная запись удалена",
        "disowned_message": "Писем о ней больше не будет.",
        "confirmed_title": "Адрес электронной почты подтверждён",
        "confirmed_message": "Больше ничего делать не нужно. Эту страницу можно закрыть.",
        "confirm_link_missing_title": "Откройте ссылку из письма",
        "confirm_link_missing_message": "Адрес подтверждает ссылка из письма, которое пришло после "
        "регистрации. Если почтовая программа её обрезала, скопируйте ссылку целиком. Она "
        "действует 24 часа; потом войдите там, где вы регистрировались, и запросите новое письмо.",
        "reset_title": "Выберите новый пароль",
        "reset_label": "Новый пароль",
        "reset_hint": "Не короче 8 символов",
        "reset_button": "Сохранить пароль",
        "reset_cancel": "Оставить старый пароль и перейти на главную страницу",
        "password_set_title": "Пароль изменён",
        "password_set_message": "Теперь можно войти. Все остальные сеансы завершены.",
        "reset_link_missing_title": "Запросите ссылку для нового пароля",
        "reset_link_missing_message": "Там, где вы входите, сообщите, что забыли пароль. Придёт "
        "письмо со ссылкой, которая действует час. Если письмо уже пришло, скопируйте ссылку "
        "целиком: почтовая программа могла её обрезать.",
        "unusable_title": "Эта ссылка не действует",
        "unusable_message": "Она уже использована, устарела или скопирована не полностью. Если вы "
        "уже подтвердили адрес или сменили пароль, больше ничего делать не нужно. Иначе запросите "
        "новую там, где вы регистрировались.",
        "too_many_requests_title": "Слишком много запросов",
        "too_many_requests_message": "Вернитесь назад и попробуйте ещё раз через {seconds} с. "
        "Ссылка ещё действует.",
        "weak_password": "Пароль слишком короткий, длинный, распространённый или совпадает с "
        "началом вашего адреса. Выберите другой.",
        "unavailable_title": "Сейчас это не работает",
        "unavailable_message": "Попробуйте ещё раз через несколько секунд. Ссылка действует.",
        "unsubscribe_title": "Отключить письма о новых рефералах?",
        "unsubscribe_explanation": "Писем о том, что кто-то пришёл по вашему коду, больше не "
        "будет. Письма об учётной записи приходят и дальше.",
        "unsubscribe_button": "Отключить",
        "unsubscribe_cancel": "Не отключать и перейти на главную страницу",
        "unsubscribed_title": "Письма о новых рефералах отключены",
        "unsubscribed_message": "Их можно снова включить в учётной записи в любое время.",
        "unsubscribe_unusable_title": "Эта ссылка не действует",
        "unsubscribe_unusable_message": "Она скопирована не полностью, или учётной записи больше "
        "нет. Скопируйте ссылку целиком: почтовая программа могла её обрезать.",
    },
}
